"""The load generator: a process of its own that keeps connections busy over raw sockets.

`python -m convergio.simulation.bench_load` reads one `Load` as JSON from standard input and prints
one `Answered`. A request costs it some 10 microseconds, so that it is not what is measured. Closed
loop: each connection sends its next request when the last one is answered. Open loop (`rate`):
requests are due at fixed instants, and a late one's delay counts from when it was due.
"""

import select
import socket
import sys
from collections import deque
from itertools import islice, repeat
from pathlib import Path
from typing import Final

import msgspec

from convergio.infra import memory
from convergio.infra.clock import stopwatch
from convergio.simulation import bench_events
from convergio.simulation.bench_figures import percentile

_RECEIVE_SIZE: Final = 262_144
_IDLE_SECONDS_MAX: Final = 60.0


class Load(msgspec.Struct, frozen=True):
    """What to send: `size` events a request, or with `path` alone that many bare requests."""

    port: int
    key: str
    path: str
    connections: int
    seconds: float
    tag: str = ""
    size: int = 0
    events: int = 0
    rate: float = 0.0
    trace: str = str(bench_events.TRACE)


class Answered(msgspec.Struct, frozen=True):
    """What came of it. Times are in seconds."""

    requests: int
    events: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float


def requests(load: Load) -> list[bytes]:
    """Return the requests as bytes, ready before the clock starts."""
    usage, _ = bench_events.skewed(Path(load.trace))
    times = -(-load.events // len(usage))
    some = list(islice((one for each in repeat(usage, times) for one in each), load.events))
    if load.path == "/healthz":
        head = f"GET {load.path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()
        return [head] * load.events
    if load.path == "/v1/authorize":
        parts = bench_events.questions(some)
    else:
        parts = bench_events.bodies(bench_events.events(some, load.tag), load.size)
    return [_head(load, len(part)) + part for part in parts]


def _head(load: Load, size: int) -> bytes:
    return (
        f"POST {load.path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {load.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    ).encode()


class _Connection:
    """A socket, when its request was due, and what it has heard so far."""

    __slots__ = ("due", "heard", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_IDLE_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_048_576)
        self.due = 0.0
        self.heard = b""

    def send(self, data: bytes, due: float) -> None:
        self.due, self.heard = due, b""
        self.socket.sendall(data)

    def status(self) -> str | None:
        """Read what is there; return the status once the whole answer is."""
        part = self.socket.recv(_RECEIVE_SIZE)
        if not part:
            return "closed"
        self.heard += part
        end = self.heard.find(b"\r\n\r\n")
        if end < 0:
            return None
        start = self.heard.find(b"content-length: ", 0, end) + 16
        size = int(self.heard[start : self.heard.find(b"\r", start)])
        return self.heard[9:12].decode() if len(self.heard) >= end + 4 + size else None


def run(load: Load) -> Answered:
    """Send until the time is over or nothing is left, then wait for the last answers."""
    waiting = deque(requests(load))
    connections = [_Connection(load.port) for _ in range(load.connections)]
    poller, by_file = select.epoll(), {one.socket.fileno(): one for one in connections}
    for file in by_file:
        poller.register(file, select.EPOLLIN)
    idle, busy = deque(connections), 0
    statuses: dict[str, int] = {}
    times: list[float] = []
    begin = stopwatch()
    end, step = begin + load.seconds, 1 / load.rate if load.rate else 0.0
    due = begin
    while True:
        now = stopwatch()
        while idle and waiting and now < end and due <= now:
            idle.popleft().send(waiting.popleft(), due if step else now)
            busy += 1
            due += step
        over = now >= end or not waiting
        if over and not busy:
            break
        pause = max(due - now, 0.0) if step and idle and not over else 1.0
        for file, _ in poller.poll(pause):
            connection = by_file[file]
            status = connection.status()
            if status is not None:
                times.append(stopwatch() - connection.due)
                statuses[status] = statuses.get(status, 0) + 1
                idle.append(connection)
                busy -= 1
    spent = stopwatch() - begin
    for connection in connections:
        connection.socket.close()
    times.sort()
    return Answered(
        requests=len(times),
        events=len(times) * max(load.size, 1),
        seconds=spent,
        statuses=statuses,
        p50=percentile(times, 0.5),
        p99=percentile(times, 0.99),
    )


def main() -> None:
    """Serve one order."""
    memory.settle()
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(run(load)))


if __name__ == "__main__":
    main()
