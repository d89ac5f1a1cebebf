"""A real server process: a limit that many callers race for, a port that is taken, a stop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import SystemClock, pause, stopwatch
from convergio.infra.db import Database
from tests.fakes import usage
from tests.fakes.http import Line
from tests.fakes.quota import CATALOG, Desk

CALLERS = 64
ATTEMPTS = 20_000
COMMAND = [sys.executable, "-m", "convergio.cli.main", "serve"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return this environment without settings of its own, and with a home of the test's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CONVERGIO_", "DATABASE_"))}
    return {**kept, "CONVERGIO_HOME": str(home), **more}


def is_ready(port: int) -> bool:
    """Say whether a server on the port can do its work."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def serving(dsn: str, home: Path, *more: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the server on a free port until the block ends."""
    port = free_port()
    with (home / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*COMMAND, "--port", str(port), *more],
            env=environment(home, DATABASE_URL=dsn),
            stdout=log,
            stderr=log,
        )
        try:
            deadline = stopwatch() + 60
            while not is_ready(port):
                assert server.poll() is None, (home / "serve.log").read_text()
                assert stopwatch() < deadline, (home / "serve.log").read_text()
                pause(0.05)
            yield port, server
        finally:
            if server.poll() is None:
                server.terminate()
                try:
                    server.wait(30)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait(10)


@pytest.fixture
def key(database: Database) -> str:
    """An administrator's key, and a customer `acme` who may use a thousand."""
    now = SystemClock().now()
    usage.with_catalog(database, CATALOG)
    Desk(database).subscribe("thousand", "acme", start=now, now=now)
    with database.transaction() as tx:
        return identity.create(tx, name="e2e", scopes=[Scope.ADMIN], now=now).secret


def test_64_callers_and_20000_attempts_are_allowed_exactly_1000_times(
    dsn: str, database: Database, key: str, tmp_path: Path
) -> None:
    statuses: Counter[int] = Counter()
    left = iter(range(ATTEMPTS))
    body = b'{"customer":"acme","meter":"questions"}'

    async def caller(port: int) -> None:
        async with Line(port, key) as line:
            for _ in left:
                status, _ = await line.post("/v1/authorize", body)
                statuses[status] += 1

    async def race(port: int) -> None:
        await asyncio.gather(*(caller(port) for _ in range(CALLERS)))

    with serving(dsn, tmp_path, "--processes", "2") as (port, _):
        asyncio.run(race(port))
    assert statuses == {200: 1_000, 429: ATTEMPTS - 1_000}
    query = b"SELECT count(*), sum(quantity) FROM reservation WHERE state = 'open'"
    with database.transaction() as tx:
        assert tx.raw.execute(query).fetchone() == (1_000, 1_000)
        assert tx.raw.execute(b"SELECT sum(reserved) FROM usage_total").fetchone() == (1_000,)


def test_a_stop_answers_what_was_begun_and_loses_nothing(
    dsn: str, database: Database, key: str, tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    sent, enough = iter(range(1_000_000)), asyncio.Event()

    async def caller(port: int) -> None:
        with suppress(ConnectionError):
            async with Line(port, key) as line:
                for number in sent:
                    event = (
                        f'{{"specversion":"1.0","id":"e{number}","source":"e2e",'
                        '"type":"ai.request","subject":"acme"}'
                    )
                    status, _ = await line.post("/v1/events", event.encode())
                    assert status in {202, 503}
                    if status == 202:
                        acknowledged.append(f"e{number}")
                    if len(acknowledged) == 500:
                        enough.set()

    async def load(port: int, server: subprocess.Popen[bytes]) -> None:
        callers = [asyncio.create_task(caller(port)) for _ in range(16)]
        await enough.wait()
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*callers), 30)

    with serving(dsn, tmp_path) as (port, server):
        asyncio.run(load(port, server))
        assert server.wait(30) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
    with database.transaction() as tx:
        stored = {row[0] for row in tx.raw.execute(b"SELECT event_id FROM usage_event").fetchall()}
    assert set(acknowledged) <= stored
    assert usage.differences(database) == []
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


def test_a_port_in_use_is_one_line_and_exit_2(dsn: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)],
            env=environment(tmp_path, DATABASE_URL=dsn),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(port) in line
    assert "--port" in line
    assert done.stdout == ""
    assert not list(tmp_path.iterdir()), "nothing half done"
