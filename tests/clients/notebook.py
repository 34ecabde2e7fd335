"""Runs a cell in a real notebook's kernel and prints what it displayed, as JSON.

Usage: notebook.py CODE
"""

import json
import sys

import nbclient
import nbformat

notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])
nbclient.NotebookClient(notebook, timeout=200).execute()
print(json.dumps([output.get("data", {}) for output in notebook.cells[0].outputs]))
