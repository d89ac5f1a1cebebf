"""A real `convergio serve` for the tests that speak to it over HTTP: one a session."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from convergio.infra import postgres
from convergio.infra.clock import stopwatch

SECONDS_MAX = 60
SCOPES = "usage:write usage:read quota:write quota:read customers:write subscriptions:write".split()


@dataclass(frozen=True)
class Served:
    """A running server, a key for it, and the environment in which its commands run."""

    url: str
    key: str
    environment: Mapping[str, str]

    def post(self, path: str, body: object) -> None:
        """Ask for something that must succeed."""
        headers = {"authorization": f"Bearer {self.key}", "idempotency-key": uuid4().hex}
        told = httpx.post(f"{self.url}{path}", json=body, headers=headers)
        assert told.is_success, told.text

    def customer(self, plan: str | None = None) -> str:
        """Make a customer of this test's own and, with a plan, subscribe it."""
        key = f"customer-{uuid4().hex}"
        self.post("/v1/customers", {"key": key})
        if plan is not None:
            self.post("/v1/subscriptions", {"customer": key, "plan": plan})
        return key

    def used(self, customer: str, meter: str = "questions") -> Decimal:
        """Return what was counted for a customer."""
        headers = {"authorization": f"Bearer {self.key}"}
        asked = {"customer": customer, "meter": meter}
        told = httpx.get(f"{self.url}/v1/quota", params=asked, headers=headers)
        assert told.status_code == 200, told.text
        return Decimal(told.json()["used"])


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def served(
    server: postgres.Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server on a database of this session's own."""
    name = f"served_{uuid4().hex}"
    home = tmp_path_factory.mktemp("served")
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONVERGIO_")} | {
        "CONVERGIO_HOME": str(home),
        "CONVERGIO_LOG_LEVEL": "error",
        "DATABASE_URL": server.dsn(name),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    key = subprocess.run(
        ["convergio", "apikey", "create", "tests", *scopes],
        env=environment, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    port = free_port()
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            ["convergio", "serve", "--port", str(port)],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        begun = stopwatch()
        while not _ready(url):
            assert process.poll() is None, (home / "serve.log").read_text()
            assert stopwatch() - begun < SECONDS_MAX
        yield Served(url, key, environment)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
