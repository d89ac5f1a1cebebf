"""The how-to pages are run as they stand, against a real server."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from convergio.infra import postgres
from tests.e2e.conftest import Served, free_port

PAGES = Path(__file__).resolve().parents[2] / "docs" / "howto"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASGI = ["fastapi", "starlette", "litestar"]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of the page's examples."""
    return BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))


def example(page: str, name: str) -> str:
    """Return the example whose first line is a comment with its name."""
    return next(text for _, text in blocks(page) if text.startswith(f"# {name}\n"))


def loaded(name: str, folder: Path) -> ModuleType:
    """Return a framework's example as a module; skip when the framework is not here."""
    pytest.importorskip(name)
    file = folder / f"guarded_{name}.py"
    file.write_text(example("guard-an-api.md", name), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the address and key where the examples look for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BILLING_URL", served.url)
    monkeypatch.setenv("BILLING_KEY", served.key)
    return tmp_path


@pytest.fixture
def empty(server: postgres.Embedded, served: Served) -> Iterator[dict[str, str]]:
    """An environment with an empty database, where commands make everything themselves."""
    name = f"howto_{uuid4().hex}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield {**served.environment, "DATABASE_URL": server.dsn(name)}
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.timeout(300)
def test_a_quota_stands_on_an_api_in_ten_minutes(empty: dict[str, str], tmp_path: Path) -> None:
    """Every shell line and the application of the page, one after the other, by a shell."""
    ports = {"8080": str(free_port()), "8000": str(free_port())}
    page = blocks("quota-in-ten-minutes.md")
    (app,) = [text for language, text in page if language == "python"]
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    script = "set -eu\n" + "".join(text for language, text in page if language == "sh")
    for written, free in ports.items():
        script = script.replace(written, free)
    environment = {**empty, "CONVERGIO_HOME": str(tmp_path), "CONVERGIO_PORT": ports["8080"]}
    with (tmp_path / "output").open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=240)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    told = (tmp_path / "output").read_text()
    assert code == 0, told
    lines = told.splitlines()
    assert "ask something" in lines
    assert '"reason": "unknown_customer"' in told
    assert '"reason": "limit_reached"' in told
    assert re.search(r'"used":"50".*"remaining":"0"', told), told
    assert "because" not in lines, "the 51st question was answered"


@pytest.mark.parametrize("name", ["track", "many", "spool", "authorize", "lease", "read"])
def test_the_clients_examples_run(served: Served, place: Path, name: str) -> None:
    customer = served.customer("free")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example("client.md", name).replace("acme", customer)],
        cwd=place, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {
        "track": "delivered: True", "many": "unknown_customer", "spool": "unknown_customer",
        "authorize": "2 50 48", "lease": "answer", "read": "",
    }  # fmt: skip
    assert expected[name] in done.stdout


@asynccontextmanager
async def _living(app: Any) -> Any:  # noqa: ANN401 - any ASGI application
    """Run an application's start-up and shut-down around a block, as a server does."""
    orders: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    done: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: dict[str, str]) -> None:
        await done.put(message["type"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, orders.get, send))
    await orders.put({"type": "lifespan.startup"})
    assert await done.get() == "lifespan.startup.complete"
    try:
        yield
    finally:
        await orders.put({"type": "lifespan.shutdown"})
        assert await done.get() == "lifespan.shutdown.complete"
        await task


async def _asked(get: Callable[..., Awaitable[httpx.Response]], customer: str) -> None:
    """Use up the free plan through an application, and see every rule kept."""
    who = {"x-customer": customer}
    for _ in range(3):
        assert (await get("/ask", params={"q": ""}, headers=who)).status_code == 400
    for _ in range(25):
        assert (await get("/ask", params={"q": "why"}, headers=who)).json() == {"answer": "because"}
        assert (await get("/stream", headers=who)).text == "because"
    for path in ("/ask?q=why", "/stream"):
        refused = await get(path, headers=who)
        assert refused.status_code == 429
        assert refused.json()["reason"] == "limit_reached"
        assert int(refused.headers["retry-after"]) > 0
    assert (await get("/ask?q=why", headers={"x-customer": "stranger"})).status_code == 403
    assert (await get("/ask?q=why")).status_code == 200, "a request of nobody is not metered"


@pytest.mark.parametrize("name", ASGI)
def test_an_asgi_framework_is_guarded(served: Served, place: Path, name: str) -> None:
    module = loaded(name, place)
    customer = served.customer("free")

    async def story() -> None:
        async with (
            _living(module.app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(module.app), base_url="http://test"
            ) as http,
        ):
            await _asked(http.get, customer)

    asyncio.run(story())
    assert served.used(customer) == 50


def test_django_is_guarded(served: Served, place: Path) -> None:
    module = loaded("django", place)
    customer = served.customer("free")

    async def story() -> None:
        with httpx.Client(
            transport=httpx.WSGITransport(module.application), base_url="http://test"
        ) as http:

            async def get(*words: Any, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
                return await asyncio.to_thread(http.get, *words, **more)

            await _asked(get, customer)

    asyncio.run(story())
    module.billing.close()
    assert served.used(customer) == 50
