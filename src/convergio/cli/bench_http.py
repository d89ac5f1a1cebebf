"""The bench's server and load generator, both in processes of their own, as in real life.

The server is `convergio serve` with two processes on the bench's database; the load comes from
`convergio.simulation.bench_load`.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import msgspec

from convergio.cli.serve import listen
from convergio.infra.clock import pause, stopwatch
from convergio.kernel.errors import Unavailable, require
from convergio.simulation.bench_load import Answered, Load

PROCESSES: Final = 2
GOOD: Final = frozenset({"200", "202"})
_READY_SECONDS_MAX: Final = 60.0
_LOAD_SECONDS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and the key that may do all that the bench does."""

    port: int
    key: str
    environment: Mapping[str, str]
    pid: int = 0

    def resident(self) -> int:
        """Return the memory of the server's processes now, in bytes; 0 where /proc is not."""
        return sum(_memory(pid, "VmRSS") for pid in _family(self.pid))

    def peak(self) -> int:
        """Return the most memory that each of them ever had, added up."""
        return sum(_memory(pid, "VmHWM") for pid in _family(self.pid))

    def load(
        self,
        path: str,
        *,
        connections: int,
        seconds: float,
        events: int,
        size: int = 0,
        tag: str = "",
        rate: float = 0.0,
        trace: str = "",
        good: frozenset[str] = GOOD,
    ) -> Answered:
        """Put load on a route and return what came of it. Every answer must be a good one."""
        order = Load(
            port=self.port, key=self.key, path=path, connections=connections, seconds=seconds,
            tag=tag, size=size, events=events, rate=rate, trace=trace,
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "convergio.simulation.bench_load"],
            input=msgspec.json.encode(order),
            stdout=subprocess.PIPE,
            env=dict(self.environment),
            check=True,
            timeout=_LOAD_SECONDS_MAX,
        )
        answered = msgspec.json.decode(done.stdout, type=Answered)
        bad = answered.statuses.keys() - good
        require(not bad, f"the bench's requests to {path} are answered {answered.statuses}")
        return answered


@contextmanager
def serving(key: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run the server on a free port until the block ends."""
    with listen("127.0.0.1", 0) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "convergio.cli.main", "serve", "--port", str(port)]
    running = subprocess.Popen(
        [*command, "--processes", str(PROCESSES)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env=dict(environment),
    )
    server = Server(port, key, environment, running.pid)
    try:
        _wait(server, running)
        yield server
    finally:
        running.terminate()
        running.wait()


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return [pid]
    return [pid, *map(int, children.split())]


def _memory(pid: int, name: str) -> int:
    """Return a line of a process's memory status (proc(5), status), in bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get(name, "0 kB").split()[0]) * 1024


def _wait(server: Server, running: subprocess.Popen[bytes]) -> None:
    """Wait until the server is ready."""
    deadline = stopwatch() + _READY_SECONDS_MAX
    while True:
        try:
            urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=5).close()
        except OSError:
            if running.poll() is not None or stopwatch() > deadline:
                raise Unavailable("the bench's server does not start", code="no_server") from None
            pause(0.05)
        else:
            return
