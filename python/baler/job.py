"""A job on a fleet."""

import json
import signal
import time
import urllib.parse
from dataclasses import dataclass

from .errors import BalerError, JobFailed, NotSound
from .progress import Progress

#: Seconds without a driver after which a job that is not committed counts as left alone: a driver which starts, or is started again, takes some.
ALONE = 30.0


@dataclass(frozen=True)
class Status:
    """How far a job is. Bytes are before and after compression; sums are of what has a receipt."""

    job: str
    #: `unknown` before its manifest, then `incomplete` or `committed`; `streaming` of a query.
    state: str
    is_running: bool = False
    splits: int = 0
    splits_done: int = 0
    documents: int = 0
    records: int = 0
    raw_bytes: int = 0
    compressed_bytes: int = 0
    dead_letters: int = 0

    @property
    def is_committed(self):
        """Whether all of it is done."""
        return self.state == "committed"


class Job:
    """A job of a name. `Fleet.submit` and `Fleet.job` make it."""

    def __init__(self, fleet, name, driver=None, said=None):
        self.fleet, self.name = fleet, name
        self._driver, self._said = driver, said

    def __repr__(self):
        return f"Job({self.name!r} on {self.fleet.url})"

    def status(self):
        """How far it is now."""
        detail = self.fleet.request("GET", f"jobs/{urllib.parse.quote(self.name, safe='')}")
        if detail is None:
            return Status(self.name, "unknown")
        summary, totals = detail["summary"], detail["totals"]
        sums = {name: totals[name] for name in ("documents", "records", "raw_bytes", "compressed_bytes")}
        counts = {name: summary[name] for name in ("splits", "splits_done", "dead_letters")}
        return Status(self.name, summary["status"], detail["is_running"], **counts, **sums)

    def wait(self, *, timeout=None, progress=False, every=1.0):
        """Returns its status when it is committed.

        `progress` shows a bar, in a notebook or on stderr; `every` is the time between two looks, in seconds.

        Raises JobFailed when its driver ends without a commit, or when nobody drives it; TimeoutError after `timeout` seconds, while the job goes on.
        """
        begun, seen = time.monotonic(), time.monotonic()
        bar = Progress(self.name) if progress else None
        while True:
            ended = self._driver is not None and self._driver.poll() is not None
            status = self.status()
            if bar:
                bar.show(status)
            if status.is_committed and (ended or self._driver is None):
                return status
            if ended and self._driver.returncode != 0:
                raise JobFailed(f"job {self.name}: {self._last_words()}")
            # The scheduler looks at the state every now and then: a driver that ended well may be ahead of what it says.
            if not ended and (status.is_running or self._driver is not None):
                seen = time.monotonic()
            if time.monotonic() - seen > ALONE:
                raise JobFailed(f"job {self.name}: nobody drives it, and {status.splits_done} of {status.splits} splits are done; submit it again")
            if timeout is not None and time.monotonic() - begun > timeout:
                raise TimeoutError(f"job {self.name}: {status.splits_done} of {status.splits} splits are done after {timeout} s")
            time.sleep(every)

    def cancel(self):
        """Stops it, resumably: submitting it again goes on with what has no receipt."""
        if self._driver is not None and self._driver.poll() is None:
            self._driver.send_signal(signal.SIGTERM)
            self._driver.wait()
        name = urllib.parse.quote(self.name, safe="")
        self.fleet.request("POST", f"jobs/{name}/cancel", {"x-baler-action": "cancel"})

    def verify(self, *, deep=False):
        """The auditor's report, as a dict; with `deep` every document was compared with its source, byte for byte.

        Raises NotSound when anything is missing, double or different; BalerError when it cannot be known.
        """
        flags = ["--deep"] if deep else []
        code, text, errors = self.fleet.call(["verify", "--job", self.name, *self.fleet._place_flags(), *flags])
        try:
            report = json.loads(text)
        except ValueError:
            lines = errors.strip().splitlines() or [f"exit code {code}"]
            raise BalerError(f"job {self.name} cannot be verified: {lines[-1]}") from None
        if code != 0:
            counts = ", ".join(f"{report[name]} {name}" for name in ("missing", "duplicate", "mismatched"))
            raise NotSound(f"job {self.name} is not sound: {counts}", report)
        return report

    def _last_words(self):
        with open(self._said, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        return f"the driver ended with {self._driver.returncode}: {last}"
