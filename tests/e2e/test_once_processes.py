"""The same change sent many times at once to two server processes is done once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def url(database: Database, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Two processes that share one port."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("CONVERGIO_")}
    own = known | {"DATABASE_URL": dsn, "CONVERGIO_HOME": str(tmp_path / "home")}
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), "--processes", "2"],
            env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    where = f"http://127.0.0.1:{port}"
    try:
        for _ in range(SECONDS_MAX * 10):
            if _ready(where):
                break
            pause(0.1)
        yield where
    finally:
        served.terminate()
        served.wait(timeout=60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_idem_04_one_of_many_at_once_is_done_and_all_hear_the_same_in_the_end(
    url: str, database: Database
) -> None:
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
    looked = httpx.get(f"{url}/v1/invoices/preview?customer=acme", headers=known).json()
    lines = [line["description"] for one in looked["invoices"] for line in one["lines"]]
    assert [line for line in lines if "Migration" in line] == ["Migration"]
