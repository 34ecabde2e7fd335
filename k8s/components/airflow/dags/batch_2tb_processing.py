"""The batch pipeline: check, generate or wait for data, compress, verify, show the figures, notify.

The job itself is a BalerJob, which its operator keeps; the other tasks are pods with one command of Baler's. A job goes on where an earlier attempt
stopped, so Airflow may repeat a task at any time.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowException
from baler_airflow import BalerRunOperator
from kubernetes.client import models as k8s

log = logging.getLogger(__name__)

JOB = "batch-2tb"
SQL = "/usr/share/baler/sql"
INPUT = "s3://baler/input/"
# Planning lists the objects, and there being none is an error.
FIRST_OBJECT = f"CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION '{INPUT}'; EXPLAIN SELECT object FROM objects"


def baler(task_id: str, arguments: list[str], **options) -> KubernetesPodOperator:
    """A pod with one command of Baler's, under the same restrictions as those of k8s/jobs."""
    return KubernetesPodOperator(
        task_id=task_id,
        name=f"baler-{task_id.replace('_', '-')}",
        namespace="baler",
        in_cluster=True,
        image=os.environ["BALER_IMAGE"],
        arguments=arguments,
        labels={"app.kubernetes.io/name": "baler", "app.kubernetes.io/component": "airflow-task"},
        env_from=[
            k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name="baler-config")),
            k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="baler-store-logins")),
        ],
        env_vars=options.pop("env_vars", {}),
        service_account_name="baler-driver",
        automount_service_account_token=False,
        priority_class_name="baler-control",
        container_resources=k8s.V1ResourceRequirements(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"}),
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=65532,
            run_as_group=65532,
            fs_group=65532,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False, read_only_root_filesystem=True, capabilities=k8s.V1Capabilities(drop=["ALL"])
        ),
        volumes=[
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi")),
            k8s.V1Volume(
                name="ca",
                secret=k8s.V1SecretVolumeSource(secret_name="stores-ca", items=[k8s.V1KeyToPath(key="ca.crt", path="ca.crt")]),
            ),
            k8s.V1Volume(name="tls", secret=k8s.V1SecretVolumeSource(secret_name="baler-driver-tls")),
            k8s.V1Volume(name="access", config_map=k8s.V1ConfigMapVolumeSource(name="baler-access")),
        ],
        volume_mounts=[
            k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),
            k8s.V1VolumeMount(name="ca", mount_path="/etc/baler/ca", read_only=True),
            k8s.V1VolumeMount(name="tls", mount_path="/etc/baler/tls", read_only=True),
            k8s.V1VolumeMount(name="access", mount_path="/etc/baler/access", read_only=True),
        ],
        # Kubernetes makes variables of Services, such as BALER_SCHEDULER_PORT, which are flags of Baler's.
        full_pod_spec=k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], enable_service_links=False)),
        on_finish_action="delete_succeeded_pod",
        # A worker which comes back finds the pod of its task and waits for it, in place of starting a second one.
        reattach_on_restart=True,
        retries=options.pop("retries", 3),
        retry_delay=timedelta(minutes=1),
        **options,
    )


SCHEDULER = "https://baler-scheduler-registration.baler.svc:50050"

with DAG(
    dag_id="batch_2tb_processing",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two runs at once would be one job twice.
    max_active_runs=1,
    params={
        "generate": Param(False, type="boolean", description="Make sample data first, in place of waiting for data."),
        "size": Param("1GiB", type="string", description="How much sample data."),
    },
    doc_md=__doc__,
) as dag:
    check = baler("check", ["health", f"--url={SCHEDULER}/healthz"])

    @task.branch
    def choose(params: dict) -> str:
        """Where the data comes from."""
        return "generate" if params["generate"] else "wait_for_data"

    generate = baler("generate", ["generate", f"--to={INPUT}", "--size={{ params.size }}", "--files=16", "--compress=gzip"])
    # Ends with an error while there is no object, and is asked again: an hour of waiting.
    wait_for_data = baler("wait_for_data", ["sql", f"--command={FIRST_OBJECT}"], retries=60)
    run = BalerRunOperator(
        task_id="run",
        name=JOB,
        spec={"sql": {"file": f"{SQL}/compress-to-mongodb.sql"}},
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
    verify = baler("verify", ["verify", f"--job={JOB}"])
    statistics = baler(
        "statistics",
        ["sql", f"--file={SQL}/stats.sql"],
        # stats.sql reads what the job wrote.
        env_vars={"INPUT": "mongodb://mongodb-mongos.baler.svc:27017/compressed_data.documents?tls=true&tlsCAFile=/etc/baler/ca/ca.crt&authSource=admin"},
    )

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def notify(ti=None, dag_run=None) -> str:
        """Says in one line how the run has ended, and fails where it has failed, so that alerts on failed runs see it."""
        figures = ti.xcom_pull(task_ids="run")
        if not figures:
            raise AirflowException(f"{dag_run.run_id}: job {JOB} is not committed; the task `run` says why")
        line = f"{dag_run.run_id}: job {JOB} is committed, {figures['documents']} documents, ratio {figures.get('ratio')}"
        log.info(line)
        return line

    told = notify()
    check >> choose() >> [generate, wait_for_data] >> run >> verify >> statistics >> told
