"""Prints the pods of a DAG's tasks in their order, as JSON: dag.py FILE KUBECONFIG."""

import importlib.util
import json
import sys

from kubernetes import client

spec = importlib.util.spec_from_file_location("dag_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
pods = []
for task in module.dag.topological_sort():
    # Outside of a cluster, the operator looks at the API server by a file.
    task.in_cluster, task.config_file = False, sys.argv[2]
    pods.append(client.ApiClient().sanitize_for_serialization(task.build_pod_request_obj(None)))
# What Airflow logs goes to stdout as well.
print("pods: " + json.dumps({"dag": module.dag.dag_id, "pods": pods}))
