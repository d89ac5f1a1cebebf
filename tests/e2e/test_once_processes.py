"""The same change is done once: sent many times at once, or again after the server was killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import SystemClock, pause
from convergio.infra.db import Database
from tests.e2e.conftest import SECONDS_MAX, free_port

AT_ONCE = 12
COMMAND = [sys.executable, "-m", "convergio.cli.main"]
# the change is committed, and the machine goes away before a byte of the answer is written
DYING = """
import os, signal, sys
from convergio.api import app, once
from convergio.cli import main
once.Response = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main.main()
"""


@pytest.fixture
def environment(database: Database, dsn: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a server on this test's database."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("CONVERGIO_")}
    return known | {"DATABASE_URL": dsn, "CONVERGIO_HOME": str(tmp_path / "home")}


@contextmanager
def serving(
    own: Mapping[str, str], *options: str, command: Sequence[str] = COMMAND
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server and wait until it is ready."""
    port = free_port()
    with (Path(own["CONVERGIO_HOME"]).parent / "log").open("ab") as log:
        served = subprocess.Popen(
            [*command, "serve", "--port", str(port), *options],
            env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    where = f"http://127.0.0.1:{port}"
    try:
        for _ in range(SECONDS_MAX * 10):
            if _ready(where) or served.poll() is not None:
                break
            pause(0.1)
        assert served.poll() is None
        yield where, served
    finally:
        served.terminate()
        served.wait(timeout=60)


@pytest.fixture
def url(environment: Mapping[str, str]) -> Iterator[str]:
    """Two processes that share one port."""
    with serving(environment, "--processes", "2") as (where, _):
        yield where


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_idem_04_one_of_many_at_once_is_done_and_all_hear_the_same_in_the_end(
    url: str, database: Database
) -> None:
    known = subscribed(url, database)
    once = known | {"idempotency-key": uuid4().hex}
    charge = {"customer": "acme", "description": "Migration", "amount": "50.00"}

    def send(_: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/charges", json=charge, headers=once, timeout=30)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        told = list(threads.map(send, range(AT_ONCE)))
    assert {one.status_code for one in told} <= {201, 409}
    last = send(0)
    assert (last.status_code, last.headers["idempotent-replayed"]) == (201, "true")
    assert {one.content for one in told if one.status_code == 201} == {last.content}
    assert asked_for(url, known) == ["Migration"]


def test_a_server_that_is_killed_between_commit_and_answer_answers_the_same_on_the_retry(
    environment: Mapping[str, str], database: Database
) -> None:
    with serving(environment) as (url, _):
        known = subscribed(url, database)
    charge = {"customer": "acme", "description": "Migration", "amount": "50.00"}
    once = known | {"idempotency-key": uuid4().hex}
    with serving(environment, command=[sys.executable, "-c", DYING]) as (url, served):
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/v1/charges", json=charge, headers=once, timeout=30)
        assert served.wait(timeout=30) == -signal.SIGKILL
    with serving(environment) as (url, _):
        assert asked_for(url, known) == ["Migration"]  # it was committed
        again = [httpx.post(f"{url}/v1/charges", json=charge, headers=once) for _ in range(2)]
        assert [(one.status_code, one.headers["idempotent-replayed"]) for one in again] == [
            (201, "true")
        ] * 2
        assert again[0].content == again[1].content
        assert again[0].json()["amount"] == "50.00"
        other = httpx.post(f"{url}/v1/charges", json=charge | {"amount": "51.00"}, headers=once)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert asked_for(url, known) == ["Migration"]


def subscribed(url: str, database: Database) -> dict[str, str]:
    """Put a customer on a plan and return the headers of a key."""
    with database.transaction() as tx:
        secret = identity.create(
            tx, name="test", scopes=[Scope.ADMIN], now=SystemClock().now()
        ).secret
    known = {"authorization": f"Bearer {secret}"}
    made = httpx.post(f"{url}/v1/customers", json={"key": "acme"}, headers=known)
    assert made.status_code == 201
    start = {"customer": "acme", "plan": "pro"}
    headers = known | {"idempotency-key": uuid4().hex}
    assert httpx.post(f"{url}/v1/subscriptions", json=start, headers=headers).status_code == 201
    return known


def asked_for(url: str, known: Mapping[str, str]) -> list[str]:
    """Return what the next invoice will ask for of this name."""
    looked = httpx.get(f"{url}/v1/invoices/preview?customer=acme", headers=known).json()
    lines = [line["description"] for one in looked["invoices"] for line in one["lines"]]
    return [line for line in lines if "Migration" in line]
