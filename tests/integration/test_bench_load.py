"""The load generator against a small server of the test's own: it counts what was answered."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from convergio.simulation.bench_load import Load, run


class _Answers(socketserver.StreamRequestHandler):
    """Answers every request with 202 and a body; on `/v1/authorize` with 429."""

    def handle(self) -> None:
        """Serve a connection until it is closed."""
        while line := self.rfile.readline():
            size = 0
            while (head := self.rfile.readline()) not in {b"\r\n", b""}:
                if head.startswith(b"content-length: "):
                    size = int(head.split()[1])
            self.rfile.read(size)
            status = b"429" if b"/v1/authorize" in line else b"202"
            self.wfile.write(b"HTTP/1.1 " + status + b" Said\r\ncontent-length: 2\r\n\r\n")
            self.wfile.flush()
            self.wfile.write(b"{}")


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a running server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _load(
    port: int, path: str, trace: Path, *, size: int = 10, events: int = 200, rate: float = 0.0,
    seconds: float = 10.0,
) -> Load:  # fmt: skip
    return Load(
        port=port, key="none", path=path, tag="t", trace=str(trace / "none"), connections=4,
        seconds=seconds, events=events, size=size, rate=rate,
    )  # fmt: skip


def test_a_closed_loop_sends_everything_and_counts_events(port: int, tmp_path: Path) -> None:
    done = run(_load(port, "/v1/events", tmp_path))
    assert (done.requests, done.events, done.statuses) == (20, 200, {"202": 20})
    assert 0 < done.p50 <= done.p99 < done.seconds


def test_other_answers_are_told_apart(port: int, tmp_path: Path) -> None:
    done = run(_load(port, "/v1/authorize", tmp_path, size=0, events=30))
    assert (done.requests, done.statuses) == (30, {"429": 30})


def test_an_open_loop_keeps_its_rate(port: int, tmp_path: Path) -> None:
    done = run(_load(port, "/healthz", tmp_path, events=40, rate=200.0))
    assert done.requests == 40
    assert done.seconds >= 39 / 200


def test_it_stops_when_its_time_is_over(port: int, tmp_path: Path) -> None:
    done = run(_load(port, "/healthz", tmp_path, events=1_000, rate=100.0, seconds=0.3))
    assert 5 < done.requests < 60
