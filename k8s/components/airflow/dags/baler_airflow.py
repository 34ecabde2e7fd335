"""Operator, trigger and sensor of Airflow for jobs of Baler on Kubernetes.

A job is a BalerJob: whoever asks for it may die, and the next attempt of the task finds it under its name and waits on. It has succeeded when
its resource says `Complete`, which `baler operator` says when the driver has ended and the job's `commit.json` is there, and for no other reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes import client, config

RESOURCE = {"group": "baler.dev", "version": "v1alpha1", "plural": "balerjobs"}
# What makes a job what it is; the API server refuses changes of it, too.
FIXED = ("sql", "job", "state", "set")
# How long a removed job may take: its driver ends the splits under way.
REMOVE_SECONDS = 180
# Figures of the status which the task returns.
FIGURES = ("documents", "records", "rawBytes", "compressedBytes", "deadLetters", "splits", "attempts", "ratio", "mbPerSecond")


class BalerJobs:
    """BalerJob resources of a namespace: with the rights of this pod, or by a kubeconfig file."""

    def __init__(self, namespace: str, config_file: str | None = None):
        settings = client.Configuration()
        if config_file:
            config.load_kube_config(config_file, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        self.namespace = namespace
        self.api = client.CustomObjectsApi(client.ApiClient(settings))

    def get(self, name: str) -> dict[str, Any] | None:
        """The resource, or None if there is none."""
        try:
            return self.api.get_namespaced_custom_object(**RESOURCE, namespace=self.namespace, name=name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def create(self, name: str, spec: dict[str, Any]) -> dict[str, Any] | None:
        """Makes it; None if one of that name is there."""
        body = {
            "apiVersion": f"{RESOURCE['group']}/{RESOURCE['version']}",
            "kind": "BalerJob",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "airflow"}},
            "spec": spec,
        }
        try:
            return self.api.create_namespaced_custom_object(**RESOURCE, namespace=self.namespace, body=body)
        except client.ApiException as error:
            if error.status == 409:
                return None
            raise

    def remove(self, name: str) -> None:
        """Cancels it. Its state stays, so that the next one of that name goes on where it stopped."""
        try:
            self.api.delete_namespaced_custom_object(**RESOURCE, namespace=self.namespace, name=name)
        except client.ApiException as error:
            if error.status != 404:
                raise

    def wait_gone(self, name: str) -> None:
        """Waits until a removed one is gone."""
        begun = time.monotonic()
        while self.get(name) is not None:
            if time.monotonic() - begun > REMOVE_SECONDS:
                raise AirflowException(f"BalerJob {name} is still there {REMOVE_SECONDS} s after it was removed; does its operator run?")
            time.sleep(1)


def is_complete(resource: dict[str, Any]) -> bool:
    """Whether the operator says, of the resource as it is, that the job is committed."""
    conditions = resource.get("status", {}).get("conditions", [])
    return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)


def outcome(name: str, resource: dict[str, Any] | None) -> dict[str, Any] | None:
    """How the job has ended; None while it goes on."""
    if resource is None or "deletionTimestamp" in resource["metadata"]:
        return {"name": name, "phase": "Removed", "message": "the BalerJob was removed while the task waited for it"}
    status = resource.get("status", {})
    phase = status.get("phase", "Pending")
    if phase == "Complete" or phase == "Failed" or phase == "Invalid":
        return {"name": name, "phase": phase, "message": status.get("message", "")}
    return None


class BalerJobTrigger(BaseTrigger):
    """Waits for the end of a BalerJob without a worker."""

    def __init__(self, name: str, namespace: str, poll_seconds: float, config_file: str | None, cancel_on_kill: bool):
        super().__init__()
        self.name = name
        self.namespace = namespace
        self.poll_seconds = poll_seconds
        self.config_file = config_file
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("name", "namespace", "poll_seconds", "config_file", "cancel_on_kill")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        jobs = await asyncio.to_thread(BalerJobs, self.namespace, self.config_file)
        while True:
            try:
                ended = outcome(self.name, await asyncio.to_thread(jobs.get, self.name))
            except Exception as error:  # The API server may be away for a moment; the job goes on.
                self.log.warning("BalerJob %s cannot be looked at, which is tried again: %s", self.name, error)
                ended = None
            if ended:
                yield TriggerEvent(ended)
                return
            await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Somebody has ended the task, where a triggerer that restarts does not come here."""
        if self.cancel_on_kill:
            jobs = await asyncio.to_thread(BalerJobs, self.namespace, self.config_file)
            await asyncio.to_thread(jobs.remove, self.name)


class _WaitsForJob:
    """What operator and sensor have in common."""

    name: str
    namespace: str
    config_file: str | None

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Ends the task. What the trigger says is looked at once more: only the resource itself makes a success."""
        resource = BalerJobs(self.namespace, self.config_file).get(self.name)
        if event["phase"] != "Complete" or resource is None or not is_complete(resource):
            raise AirflowException(f"BalerJob {self.name} is {event['phase']}: {event['message']}")
        figures = {name: resource["status"][name] for name in FIGURES if name in resource["status"]}
        self.log.info("BalerJob %s is committed: %s", self.name, figures)
        return figures


class BalerRunOperator(_WaitsForJob, BaseOperator):
    """Runs a batch job of Baler and waits for its commit; returns the figures of its status.

    :param name: name of the BalerJob. A running one of that name is waited for, a complete one is done, and one that has failed is removed and
        begun anew, which goes on where it stopped.
    :param spec: spec of the BalerJob (`kubectl explain balerjob.spec`).
    :param namespace: where the operator of Baler looks for it.
    :param poll_seconds: time between two looks.
    :param config_file: a kubeconfig file; the rights of Airflow's own pod if not given.
    :param deferrable: wait in the triggerer, which takes no worker.
    """

    template_fields: Sequence[str] = ("name", "spec")

    def __init__(
        self,
        *,
        name: str,
        spec: dict[str, Any],
        namespace: str = "baler",
        poll_seconds: float = 10.0,
        config_file: str | None = None,
        deferrable: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.name = name
        self.spec = spec
        self.namespace = namespace
        self.poll_seconds = poll_seconds
        self.config_file = config_file
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        jobs = BalerJobs(self.namespace, self.config_file)
        resource = self._submit_or_attach(jobs)
        while (ended := outcome(self.name, resource)) is None:
            if self.deferrable:
                trigger = BalerJobTrigger(self.name, self.namespace, self.poll_seconds, self.config_file, cancel_on_kill=True)
                self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)
            time.sleep(self.poll_seconds)
            resource = jobs.get(self.name)
        return self.finish(context, ended)

    def _submit_or_attach(self, jobs: BalerJobs) -> dict[str, Any]:
        while (resource := jobs.create(self.name, self.spec)) is None:
            found = jobs.get(self.name)
            if found is None:
                continue
            leaves = "deletionTimestamp" in found["metadata"]
            if not leaves and any(found["spec"].get(key) != self.spec.get(key) for key in FIXED):
                raise AirflowException(f"there is another BalerJob {self.name}; take another name, or remove that one")
            ended = outcome(self.name, found)
            if not leaves and (ended is None or ended["phase"] == "Complete"):
                self.log.info("BalerJob %s is there already, %s", self.name, "under way" if ended is None else "complete")
                return found
            # One that has failed is begun anew with its state.
            jobs.remove(self.name)
            jobs.wait_gone(self.name)
        self.log.info("BalerJob %s is submitted", self.name)
        return resource

    def on_kill(self) -> None:
        """The task was ended while a worker had it; in the triggerer, the trigger does this."""
        BalerJobs(self.namespace, self.config_file).remove(self.name)


class BalerJobSensor(_WaitsForJob, BaseSensorOperator):
    """Waits until a BalerJob which somebody else runs is committed; returns the figures of its status. Fails when the job does.

    :param name: name of the BalerJob, which may not be there yet.
    :param namespace: where it is.
    :param poll_seconds: time between two looks.
    :param config_file: a kubeconfig file; the rights of Airflow's own pod if not given.
    """

    template_fields: Sequence[str] = ("name",)

    def __init__(
        self, *, name: str, namespace: str = "baler", poll_seconds: float = 30.0, config_file: str | None = None, **kwargs
    ):
        super().__init__(poke_interval=timedelta(seconds=poll_seconds), mode="reschedule", **kwargs)
        self.name = name
        self.namespace = namespace
        self.config_file = config_file

    def poke(self, context: Context) -> bool:
        resource = BalerJobs(self.namespace, self.config_file).get(self.name)
        if resource is None:
            return False
        ended = outcome(self.name, resource)
        if ended:
            self.finish(context, ended)
        return ended is not None
