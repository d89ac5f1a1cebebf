"""The stage of a fault test: a home of its own, its Postgres, its server processes, and kill -9.

Everything runs as a person would run it: `convergio serve`, `convergio bill` and
`convergio verify` are processes, the database is the embedded one with its usual settings.
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg

from convergio.infra import postgres

READY_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 1_200.0  # a run or a check over 100,000 subscriptions beside other work
COMMAND = [sys.executable, "-m", "convergio.cli.main"]
BYTECODE = tempfile.TemporaryDirectory(prefix="convergio-fault-")  # starts are half of the time


def seed() -> int:
    """The seed of this run: FAULT_SEED, or a new one; it is printed at the end."""
    return int(os.environ.get("FAULT_SEED") or secrets.randbits(32))


def kills(usual: int) -> int:
    """How often each thing is killed: FAULT_KILLS, or what is usual for it."""
    return int(os.environ.get("FAULT_KILLS") or usual)


def real_now() -> datetime:
    """The instant that the server processes live in too: they read the real clock."""
    return datetime.now(UTC)  # noqa: TID251 - a test of real processes is an edge


@dataclass
class Stage:
    """Processes and a database to kill; `through` is a proxy's folder, for the server alone."""

    home: Path
    embedded: postgres.Embedded
    port: int
    database: str = "convergio"
    through: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    log: list[Path] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Where the database is."""
        return self.embedded.dsn(self.database)

    def environment(self) -> dict[str, str]:
        """The environment of our processes: this home, and no setting of the developer's own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CONVERGIO_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept |= {"CONVERGIO_HOME": str(self.home), "CONVERGIO_LOG_LEVEL": "warning"}
        kept |= {"DATABASE_URL": self.dsn, "PYTHONPYCACHEPREFIX": BYTECODE.name}
        return kept | self.settings

    def command(self, *arguments: str) -> Any:  # noqa: ANN401 - the command's own JSON
        """Run a command to its end and return the JSON of its last line."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--json"],
            env=self.environment(), capture_output=True, text=True, check=False,
            timeout=COMMAND_SECONDS_MAX,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, so that it dies with all its children."""
        log = self.home / f"{arguments[0]}-{len(self.log)}.log"
        self.log.append(log)
        environment = self.environment()
        if self.through is not None:
            embedded = replace(self.embedded, socket=self.through)
            environment["DATABASE_URL"] = embedded.dsn(self.database)
        with log.open("wb") as output:
            return subprocess.Popen(
                [*COMMAND, *arguments], env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def serve(self, processes: int) -> None:
        """Start the server and wait until it is ready."""
        begun = self.begin("serve", "--port", str(self.port), "--processes", str(processes))
        self.server = begun
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.ready():
            told = self.log[-1].read_text()
            assert begun.poll() is None, f"the server ended with {begun.returncode}: {told}"
            assert time.monotonic() < deadline, f"the server is not ready: {told}"
            time.sleep(0.03)

    def ready(self) -> bool:
        """Say whether the server answers and reaches its database."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def kill_server(self) -> None:
        """Kill -9 the server: the one that listens, and all its worker processes."""
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        self.server = None

    def kill_worker(self, place: float) -> bool:
        """Kill -9 one of the server's worker processes; its parent starts another."""
        assert self.server is not None
        workers = [pid for pid in children(self.server.pid) if b"spawn_main" in words(pid)]
        return bool(workers) and kill(workers[int(place * len(workers))])

    def stop_server(self) -> None:
        """Ask the server to end, and wait for it."""
        if self.server is not None:
            self.server.terminate()
            self.server.wait(timeout=60)
            self.server = None

    @property
    def postmaster(self) -> int:
        """The process id of the database server."""
        return int((self.embedded.data / "postmaster.pid").read_text().split()[0])

    def kill_postgres(self) -> list[int]:
        """Kill -9 the database's first process; return it and the children it had."""
        postmaster = self.postmaster
        family = [postmaster, *children(postmaster)]
        kill(postmaster)
        with suppress(ChildProcessError):  # it is ours where orphans are adopted
            os.waitpid(postmaster, 0)
        return family

    def kill_backend(self, place: float) -> bool:
        """Kill -9 one database session of ours; the database then restarts all by itself."""
        backends = [pid for pid in children(self.postmaster) if b"convergio" in words(pid)]
        return bool(backends) and kill(backends[int(place * len(backends))])

    def start_postgres(self) -> None:
        """Start the database again."""
        self.embedded = postgres.start(self.home / "postgres")

    @contextmanager
    def connected(self, database: str | None = None) -> Iterator[psycopg.Connection]:
        """A connection of the test's own."""
        name = database or self.database
        with psycopg.connect(self.embedded.dsn(name), autocommit=True) as connection:
            yield connection


@contextmanager
def built() -> Iterator[Stage]:
    """Build a stage with an empty database, and clear it away."""
    _adopt_orphans()
    home = Path(tempfile.mkdtemp(prefix="convergio-fault-"))
    home.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stage = Stage(home, postgres.start(home / "postgres"), port)
    try:
        yield stage
    finally:
        if stage.server is not None:
            stage.kill_server()
        postgres.stop(home / "postgres", immediately=True)
        shutil.rmtree(home)


def _adopt_orphans() -> None:
    """Become the parent of what our dead children leave behind (prctl(2), PR_SET_CHILD_SUBREAPER).

    Postgres starts again once its old process is collected; whoever does that by default may take
    seconds. Elsewhere than on Linux this does nothing, and the tests are slower.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def kill(pid: int) -> bool:
    """Kill -9 a process; say whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the direct children of a process, grandchildren of a forked server included."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(place.parent.name))
    return sorted(found)


def words(pid: int) -> bytes:
    """Return the command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
