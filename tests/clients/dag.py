"""Prints a DAG's tasks in their order, and the pods of those which are pods, as JSON: dag.py FILE KUBECONFIG."""

import importlib.util
import json
import pathlib
import sys

from kubernetes import client

# As Airflow does with its folder of DAGs.
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
spec = importlib.util.spec_from_file_location("dag_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
tasks, pods = [], {}
for task in module.dag.topological_sort():
    tasks.append({"id": task.task_id, "type": type(task).__name__, "after": sorted(task.upstream_task_ids)})
    if hasattr(task, "build_pod_request_obj"):
        # Outside of a cluster, the operator looks at the API server by a file.
        task.in_cluster, task.config_file = False, sys.argv[2]
        pods[task.task_id] = client.ApiClient().sanitize_for_serialization(task.build_pod_request_obj(None))
job = module.dag.get_task("run")
# What Airflow logs goes to stdout as well.
print("dag: " + json.dumps({"dag": module.dag.dag_id, "tasks": tasks, "pods": pods, "job": {"name": job.name, "spec": job.spec}}))
