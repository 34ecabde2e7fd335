"""Uses the Python client against a fleet as a user's program would, and prints one line of JSON for each thing it did.

Usage: python_client.py URL SQL INPUT OUTPUT
"""

import dataclasses
import json
import sys
from pathlib import Path

import baler


def say(name, value):
    print(json.dumps({name: value}), flush=True)


def main(url, sql, source, target):
    fleet = baler.connect(url)
    say("state", fleet.state)
    say("unknown", dataclasses.asdict(fleet.job("nightly").status()))
    job = fleet.submit(Path(sql), job="nightly", set={"INPUT": source, "OUTPUT": target})
    say("done", dataclasses.asdict(job.wait(timeout=200, progress=True, every=0.2)))
    say("followed", dataclasses.asdict(fleet.job("nightly").wait(timeout=20)))
    say("jobs", fleet.jobs())
    say("report", job.verify(deep=True))
    say("rows", fleet.query("SELECT 41 + 1 AS answer").to_pylist())
    # The same again is done already.
    say("again", fleet.submit(Path(sql).read_text(), job="nightly", set={"INPUT": source, "OUTPUT": target}).wait(timeout=100).is_committed)
    try:
        fleet.submit("SELECT nothing", job="wrong").wait(timeout=100)
    except baler.JobFailed as error:
        say("failed", str(error))
    for part in Path(target).rglob("*.bson"):
        part.write_bytes(part.read_bytes()[:-100])
        break
    try:
        job.verify()
    except baler.BalerError as error:
        say("broken", [type(error).__name__, str(error)])
    try:
        baler.connect("df://127.0.0.1:1").jobs()
    except baler.BalerError as error:
        say("nobody", str(error))


main(*sys.argv[1:])
