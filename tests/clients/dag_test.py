"""Runs a DAG as `airflow dags test` does: dag_test.py FOLDER ACCOUNT DAG CONF, and says how its tasks ended.

Airflow is as in its pod, which finds the API server by its service account. Two things are not those of a pod: where that account's files are (the
folder ACCOUNT), and that the logs of pods are not fetched, for which the API server would ask a kubelet.
"""

import json
import os
import subprocess
import sys

folder, account, dag_id, conf = sys.argv[1:]
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = folder
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
subprocess.run([os.path.join(os.path.dirname(sys.executable), "airflow"), "db", "migrate"], check=True, stdout=sys.stderr)

from airflow.__main__ import main  # noqa: E402
from airflow.models.taskinstance import TaskInstance  # noqa: E402
from airflow.models.xcom import XComModel  # noqa: E402
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from kubernetes.config import incluster_config  # noqa: E402

incluster_config.SERVICE_TOKEN_FILENAME = os.path.join(account, "token")
incluster_config.SERVICE_CERT_FILENAME = os.path.join(account, "ca.crt")
KubernetesPodOperator.get_logs = property(lambda self: False, lambda self, value: None)
sys.argv = ["airflow", "dags", "test", dag_id, "--conf", conf]
try:
    main()
except SystemExit as end:
    print(f"it ended with {end.code}", file=sys.stderr)
with create_session() as session:
    ended = {one.task_id: one.state for one in session.query(TaskInstance).filter(TaskInstance.dag_id == dag_id)}
    told = session.query(XComModel).filter(XComModel.dag_id == dag_id, XComModel.task_id == "notify").first()
    print("result: " + json.dumps({"states": ended, "told": told and str(told.value)}))
