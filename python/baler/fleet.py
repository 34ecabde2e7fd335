"""A fleet, by its scheduler."""

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .errors import BalerError
from .job import Job

#: How long the scheduler may take for one answer, in seconds.
TIMEOUT = 30


def _token():
    if token := os.environ.get("BALER_TOKEN"):
        return token
    file = os.environ.get("BALER_TOKEN_FILE")
    return Path(file).read_text().strip() if file else None


class Fleet:
    """A scheduler, its executors, and the folder with the state of their jobs."""

    def __init__(self, url=None, *, state=None, binary=None):
        self.url = url or os.environ.get("BALER_SCHEDULER") or "df://localhost:50050"
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("df", "dfs") or not parts.hostname:
            raise BalerError(f"{self.url} is no scheduler; write df://host:50050, or dfs://host:50050 for TLS")
        self._tls = parts.scheme == "dfs"
        self._place = parts.netloc if parts.port else f"{parts.netloc}:50050"
        self._binary = binary or os.environ.get("BALER_BIN") or "baler"
        self.state = state or os.environ.get("BALER_STATE") or self.request("GET", "overview")["state"]

    def __repr__(self):
        return f"Fleet({self.url!r}, state={self.state!r})"

    def submit(self, statement, job, *, set=None, options=()):
        """Starts a job, or resumes the one of this name, and returns at once.

        `statement` is the SQL, or a `pathlib.Path` of a file with it; `set` holds the values of its `${…}`; `options` are further flags of
        `baler run`. The driver outlives this process; `Job.wait` waits for it.
        """
        if not isinstance(statement, os.PathLike):
            file = tempfile.NamedTemporaryFile("w", suffix=".sql", prefix=f"{job}-", delete=False)
            with file:
                file.write(statement)
            statement = file.name
        arguments = ["run", os.fspath(statement), "--job", job, *self._place_flags(), *options]
        for name, value in (set or {}).items():
            arguments += ["--set", f"{name}={value}"]
        said = tempfile.NamedTemporaryFile("w+", suffix=".log", prefix=f"{job}-", delete=False)
        with said:
            driver = subprocess.Popen(
                self._command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
        return Job(self, job, driver, said.name)

    def job(self, name):
        """A job that was begun anywhere."""
        return Job(self, name)

    def jobs(self):
        """The names of all jobs and queries."""
        return [job["job"] for job in self.request("GET", "jobs")]

    def query(self, sql):
        """Runs a SELECT on the fleet and returns a `pyarrow.Table`."""
        import adbc_driver_flightsql
        import adbc_driver_flightsql.dbapi

        options = {}
        keys = adbc_driver_flightsql.DatabaseOptions
        if self._tls:
            files = {keys.TLS_ROOT_CERTS: "BALER_TLS_CA", keys.MTLS_CERT_CHAIN: "BALER_TLS_CERT", keys.MTLS_PRIVATE_KEY: "BALER_TLS_KEY"}
            options = {key.value: Path(os.environ[name]).read_text() for key, name in files.items() if name in os.environ}
        if token := _token():
            options[keys.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
        url = f"grpc+tls://{self._place}" if self._tls else f"grpc://{self._place}"
        with adbc_driver_flightsql.dbapi.connect(url, db_kwargs=options, autocommit=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetch_arrow_table()

    def request(self, method, path, headers=None):
        """Asks the scheduler's `/api/baler/<path>`; `None` where there is nothing."""
        url = f"{'https' if self._tls else 'http'}://{self._place}/api/baler/{path}"
        request = urllib.request.Request(url, method=method, headers=headers or {})
        if token := _token():
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=self._context()) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise BalerError(f"{url}: {error.code} {error.read().decode(errors='replace').strip()}") from error
        except (OSError, ssl.SSLError) as error:
            raise BalerError(f"{url} does not answer: {error}; check the address and that `baler scheduler` runs") from error
        return json.loads(text) if text else {}

    def call(self, arguments):
        """Runs the program to its end: its exit code, output and errors."""
        done = subprocess.run(self._command(arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        return done.returncode, done.stdout, done.stderr

    def _place_flags(self):
        return ["--state", self.state, "--scheduler", self.url]

    def _command(self, arguments):
        program = shutil.which(self._binary)
        if program is None:
            raise BalerError(f"there is no program {self._binary}; put `baler` on PATH, or name it by BALER_BIN")
        return [program, "--output", "json", *arguments]

    def _context(self):
        if not self._tls:
            return None
        context = ssl.create_default_context(cafile=os.environ.get("BALER_TLS_CA"))
        if certificate := os.environ.get("BALER_TLS_CERT"):
            context.load_cert_chain(certificate, os.environ.get("BALER_TLS_KEY"))
        return context
