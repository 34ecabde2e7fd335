"""A thin client of a Baler fleet: submit, status, wait, cancel, verify, query.

A job is driven by a process of the `baler` program, as on the command line: this package starts it, and asks the scheduler how far it is.
The program is looked for on PATH, or is named by BALER_BIN.
"""

from .errors import BalerError, JobFailed, NotSound
from .fleet import Fleet
from .job import Job, Status

__all__ = ["BalerError", "Fleet", "Job", "JobFailed", "NotSound", "Status", "connect"]
__version__ = "0.1.0"


def connect(url=None, *, state=None, binary=None):
    """The fleet of a scheduler, `df://host:50050` or `dfs://…` for TLS; without a URL that of BALER_SCHEDULER.

    `state` is the folder with the state of all jobs; without it that of BALER_STATE, else the scheduler's own. Certificates and tokens come from
    the variables which the program knows: BALER_TLS_CA, BALER_TLS_CERT, BALER_TLS_KEY, BALER_TOKEN, BALER_TOKEN_FILE.

    Raises BalerError when the scheduler does not answer.
    """
    return Fleet(url, state=state, binary=binary)
