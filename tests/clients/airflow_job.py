"""Plays Airflow's parts for one task of a BalerRunOperator or BalerJobSensor: airflow_job.py FOLDER KUBECONFIG WHAT NAME SPEC.

submit    a worker: the task begins and is deferred
wait      a worker, the triggerer, and a worker again: the task begins, is deferred, and ends
kill      the triggerer, told that somebody has ended the task
poke      a worker of the sensor, once
"""

import asyncio
import json
import sys

folder, kubeconfig, what, name, spec = sys.argv[1:]
sys.path.insert(0, folder)

from airflow.sdk.exceptions import AirflowException, TaskDeferred  # noqa: E402
from baler_airflow import BalerJobSensor, BalerJobTrigger, BalerRunOperator  # noqa: E402


def say(**result):
    # What Airflow logs goes to stdout as well.
    print("result: " + json.dumps(result))


def trigger_of(deferred):
    """As the triggerer makes it anew from what was stored."""
    path, arguments = deferred.trigger.serialize()
    assert path == "baler_airflow.BalerJobTrigger", path
    return BalerJobTrigger(**json.loads(json.dumps(arguments)))


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload


operator = BalerRunOperator(task_id="run", name=name, spec=json.loads(spec), config_file=kubeconfig, poll_seconds=0.5)
if what == "poke":
    sensor = BalerJobSensor(task_id="sense", name=name, config_file=kubeconfig)
    try:
        say(poked=sensor.poke({}))
    except AirflowException as error:
        say(failed=str(error))
    sys.exit()
try:
    say(done=operator.execute({}))
except AirflowException as error:
    say(failed=str(error))
except TaskDeferred as deferred:
    trigger = trigger_of(deferred)
    if what == "submit":
        say(deferred=deferred.method_name)
    elif what == "kill":
        asyncio.run(trigger.on_kill())
        say(killed=True)
    else:
        event = asyncio.run(first_event(trigger))
        try:
            say(done=getattr(operator, deferred.method_name)({}, event))
        except AirflowException as error:
            say(failed=str(error))
