"""The whole API in this process: one product on one database, requests without a socket."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import psycopg
from litestar import Litestar
from psycopg import sql

from convergio.api.app import inside
from convergio.api.hot import HotPath
from convergio.api.limiting import Limits
from convergio.billing import actions as billing
from convergio.customers import actions as customers
from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from convergio.infra.settings import Settings
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import App, opened
from tests.fakes.meters import NOW

CARD = "4242424242424242"


class Api:
    """An open product, a client on it, and keys."""

    def __init__(
        self, product: App, app: Litestar, client: httpx.AsyncClient, runner: asyncio.Runner
    ) -> None:
        self.product = product
        self.app = app
        self._client = client
        self._runner = runner
        self.admin = self.key(Scope.ADMIN)

    def key(self, *scopes: Scope, customer_id: UUID | None = None) -> str:
        """Make a key and return its secret."""
        with self.product.database.transaction() as tx:
            made = identity.create(
                tx, name="test", scopes=scopes, now=self.now, customer_id=customer_id
            )
        return made.secret

    @property
    def now(self) -> datetime:
        """The virtual instant."""
        return self.product.clock.now()

    def customer(self, plan: str | None = None) -> tuple[str, UUID]:
        """Make a customer of the test's own, perhaps on a plan; return key and id."""
        name = f"c-{uuid4().hex[:12]}"
        with self.product.database.transaction() as tx:
            made = customers.create(tx, self.product.keyring, key=name, now=self.now)
            if plan is not None:
                subscriptions.create(
                    tx, customer_id=made.customer_id, plan_key=plan, start=self.now, now=self.now
                )
        return name, made.customer_id

    def billed(self) -> str:
        """Bill a new customer's first fee of 6.99 and return the number of the open invoice."""
        _, customer_id = self.customer("pro")
        billing.run(
            self.product.database,
            as_of=self.now,
            now=self.now,
            seller=self.product.settings.seller,
            keyring=self.product.keyring,
            grace=self.product.grace * 0,
        )
        with self.product.database.transaction() as tx:
            (invoice,) = billing.page(tx, customer_id=customer_id)
        return invoice.number_text

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - any JSON, or bytes as they are
        *,
        key: str | None = "",
        **more: Any,  # noqa: ANN401 - what httpx takes
    ) -> httpx.Response:
        """Send a request: as admin, as another key, or with None as nobody.

        A change carries an Idempotency-Key of its own, as a careful client's does; the header can
        be given, and with None it is left out.
        """
        headers = dict(more.pop("headers", {}))
        if method in {"POST", "PUT", "PATCH", "DELETE"}:
            headers.setdefault("idempotency-key", uuid4().hex)
        headers = {name: value for name, value in headers.items() if value is not None}
        if key is not None:
            headers.setdefault("authorization", f"Bearer {key or self.admin}")
        if isinstance(body, bytes):
            more["content"] = body
            headers.setdefault("content-type", "application/json")
        elif body is not None:
            more["json"] = body
        return self._runner.run(self._client.request(method, path, headers=headers, **more))

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:  # noqa: ANN401 - as send
        """Send JSON."""
        return self.send("POST", path, body, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - as send
        """Ask."""
        return self.send("GET", path, **more)

    def count(self, table: str) -> int:
        """Return how many rows a table holds."""
        with self.product.database.transaction() as tx:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            row = tx.raw.execute(query).fetchone()
        return int(row[0]) if row else 0


def event(subject: str, event_id: str = "", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a CloudEvent with an id of its own."""
    return {
        "specversion": "1.0",
        "id": event_id or uuid4().hex,
        "source": "test",
        "type": "ai.request",
        "subject": subject,
        **more,
    }


@contextmanager
def running(
    server: Embedded,
    template: str,
    home: Path,
    **chosen: Any,  # noqa: ANN401 - settings by name
) -> Iterator[Api]:
    """Open a product on a database of its own, under a virtual clock, with the example catalog."""
    name = f"api_{uuid4().hex}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    settings = Settings(home=str(home), log_level="error", **chosen)
    with opened(settings, url=server.dsn(name), clock=VirtualClock(NOW)) as product:
        limits = Limits(product.settings)
        app = inside(product, limits)
        served = HotPath(product, app, limits)
        answer = cast("Callable[..., Awaitable[None]]", served)  # the same protocol, other types
        transport = httpx.ASGITransport(answer, raise_app_exceptions=False)
        with asyncio.Runner() as runner:
            client = httpx.AsyncClient(transport=transport, base_url="http://test")
            try:
                yield Api(product, app, client, runner)
            finally:
                runner.run(client.aclose())
                served.close()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
