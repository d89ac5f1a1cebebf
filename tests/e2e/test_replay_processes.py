"""`convergio replay` as a process: against a real server, and killed in the middle of its work."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from convergio.infra.clock import stopwatch

ROWS = 40_000
MAPPING = """
[source]
name = "urn:test"
format = "ssv"
columns = ["who", "at", "n"]

[event]
type = "ai.request"
time = {column = "at", format = "unix"}
customer = {column = "who"}

[data.quantity]
column = "n"
"""
COMMAND = (sys.executable, "-m", "convergio.cli.main")
SECONDS_MAX = 60
REPLAY = ("replay", "trace.txt", "--mapping", "mapping.toml", "--json")
NEW = ("--create-customers", "--plan", "pro", "--start", "2024-11-01T00:00:00Z")


@pytest.fixture
def place(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trace and its mapping; commands started in it use this test's database."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    lines = (f"c{n % 500} {1_731_000_000 + n * 60} {n % 7}\n" for n in range(ROWS))
    (tmp_path / "trace.txt").write_text("".join(lines), encoding="ascii")
    (tmp_path / "mapping.toml").write_text(MAPPING, encoding="ascii")
    return tmp_path


def run(place: Path, *words: str) -> Any:  # noqa: ANN401 - any JSON value
    done = subprocess.run(
        (*COMMAND, *words), cwd=place, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def counted(place: Path) -> int:
    found = run(place, "usage", "--meter", "questions", "--by", "year", "--json")["usage"]
    return sum(int(row["events"]) for row in found)


@pytest.fixture
def address(place: Path) -> Iterator[str]:
    """The address of a server process on this test's database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen((*COMMAND, "serve", "--port", str(port)), cwd=place) as server:
        try:
            until = stopwatch() + SECONDS_MAX
            while not _answers(url):
                assert server.poll() is None, "the server ended"
                assert stopwatch() < until, "the server does not answer"
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(SECONDS_MAX)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2).is_success
    except httpx.TransportError:
        return False


def test_a_trace_over_http_counts_once(
    place: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = ("--scope", "usage:write", "--scope", "usage:import")
    monkeypatch.setenv(
        "TRACE_KEY", run(place, "apikey", "create", "trace", *scopes, "--json")["key"]
    )
    run(place, *REPLAY, *NEW, "--limit", "500")
    sent = (*REPLAY, "--to", address, "--key", "TRACE_KEY", "--limit", "5000")
    first, again = run(place, *sent), run(place, *sent)
    assert (first["accepted"], first["duplicate"]) == (4_500, 500)
    assert (again["accepted"], again["duplicate"]) == (0, 5_000)
    assert counted(place) == 5_000


def test_a_replay_that_was_killed_goes_on_where_it_stopped(place: Path) -> None:
    run(place, *REPLAY, *NEW, "--limit", "1")
    with subprocess.Popen((*COMMAND, *REPLAY, *NEW), cwd=place) as started:
        until = stopwatch() + SECONDS_MAX
        while counted(place) <= 1:
            assert stopwatch() < until
        started.send_signal(signal.SIGKILL)
    before = counted(place)
    done = run(place, *REPLAY, *NEW)
    assert (done["accepted"], done["duplicate"]) == (ROWS - before, before)
    assert counted(place) == ROWS
    assert run(place, "verify", "--json")["ok"]
