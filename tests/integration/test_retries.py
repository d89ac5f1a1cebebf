"""A change that met another transaction is begun again, whichever door it came through: once."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from convergio.catalog import actions as catalog
from convergio.cli import grant as grant_command
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.infra import answers
from convergio.infra.db import Blocked, Contended, Database, Tx
from convergio.infra.postgres import Embedded
from convergio.kernel.errors import Unavailable
from convergio.subscriptions import repricing, store
from tests.fakes.api import Api, running
from tests.fakes.business import Business
from tests.integration.test_meeting import SCHEDULE, deadlocked, deadlocks

GRANT: LiteralString = "SELECT 1 FROM credit_grant WHERE customer_id = %s FOR UPDATE"
PACK = {"key": "pack", "meter": "questions", "quantity": "10", "category": "purchased"}
Fail = Callable[..., None]


@pytest.fixture
def api(server: Embedded, template: str, tmp_path: Path) -> Iterator[Api]:
    with running(server, template, tmp_path / "home") as own:
        yield own


def test_a_grant_that_is_voided_over_http_meets_a_plan_change_and_is_voided_once(api: Api) -> None:
    name, who = api.customer("free")
    where = f"/v1/customers/{name}/credit-grants"
    grant = api.post(where, PACK).json()["id"]
    headers = {"idempotency-key": uuid4().hex}
    with deadlocked(api.product.database.dsn, (SCHEDULE, who), (GRANT, who)) as meet:
        told = meet(lambda: api.post(f"{where}/{grant}/void", {}, headers=headers))
    assert deadlocks(api.product.database) >= 1
    assert (told.status_code, told.json()["state"]) == (200, "voided")
    again = api.post(f"{where}/{grant}/void", {}, headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (told.content, "true")
    assert api.count("request_answer") == 2  # the grant and its void, each once


def test_a_grant_that_is_voided_on_the_command_line_meets_a_plan_change_and_is_voided(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path))
    with opened() as product, product.database.transaction() as tx:
        now = product.clock.now() - timedelta(minutes=5)
        who = customers.create(tx, product.keyring, key="acme", now=now).customer_id

    def run(*words: str) -> Any:  # noqa: ANN401 - any JSON
        found = CliRunner().invoke(grant_command.app, [*words, "--json"])
        assert found.exit_code == 0, found.exception
        return json.loads(found.stdout.splitlines()[-1])

    made = run("add", "acme", "p", "--meter", "questions", "--quantity", "7", "--category",
               "purchased")  # fmt: skip
    with deadlocked(dsn, (SCHEDULE, who), (GRANT, who)) as meet:
        assert meet(lambda: run("void", "acme", made["id"]))["state"] == "voided"
    assert deadlocks(database) >= 1


def failing(times: int, error: type[Unavailable]) -> tuple[Fail, list[int]]:
    """Return what raises so many times and then does nothing, and how often it was asked."""
    tries: list[int] = []

    def fail(*_: object, **__: object) -> None:
        tries.append(1)
        if len(tries) <= times:
            raise error("met", code="contended")

    return fail, tries


@pytest.mark.parametrize(("error", "times"), [(Contended, 7), (Blocked, 2)])
def test_what_is_undone_at_its_very_end_is_done_again_under_its_key(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: type[Unavailable], times: int
) -> None:
    name, _ = api.customer()
    keep = answers.keep
    fail, tries = failing(times, error)

    def undone(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as keep
        fail()
        keep(*args, **kwargs)

    monkeypatch.setattr("convergio.api.once.answers.keep", undone)
    headers = {"idempotency-key": uuid4().hex}
    body = {"customer": name, "plan": "pro"}
    told = api.post("/v1/subscriptions", body, headers=headers)
    assert (told.status_code, len(tries)) == (201, times + 1)
    assert len(api.get(f"/v1/subscriptions?customer={name}").json()["subscriptions"]) == 1
    assert api.post("/v1/subscriptions", body, headers=headers).content == told.content


def test_who_is_met_again_and_again_is_told_to_come_back_and_nothing_is_kept(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = api.customer()
    fail, tries = failing(100, Contended)
    monkeypatch.setattr("convergio.api.once.answers.keep", fail)
    told = api.post("/v1/subscriptions", {"customer": name, "plan": "pro"})
    assert (told.status_code, told.json()["code"], len(tries)) == (503, "contended", 8)
    assert int(told.headers["retry-after"]) >= 1
    assert api.get(f"/v1/subscriptions?customer={name}").json()["subscriptions"] == []


def test_a_lock_that_does_not_come_is_waited_for_again_for_a_few_seconds_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convergio.infra.db._BLOCKED_SECONDS_MAX", 0.5)
    tries: list[int] = []

    def work(tx: Tx) -> int:
        tries.append(1)
        tx.raw.execute("SET LOCAL lock_timeout = '200ms'")
        return len(tx.tuples("SELECT number FROM one FOR UPDATE"))

    with database.transaction() as tx:
        tx.raw.execute("CREATE TABLE one AS SELECT 1 AS number")
    with psycopg.connect(database.dsn) as other:
        other.execute("SELECT 1 FROM one FOR UPDATE")
        with pytest.raises(Blocked):
            database.insist(work)
        assert 2 <= len(tries) <= 4
    assert database.insist(work) == 1


CATALOG = """
currency: usd
plans:
  - key: pro
    name: Pro
    prices:
      - {{key: fee, version: {0}, name: Pro, charge: {{model: flat, amount: {0}.00}}}}
"""


def test_prices_that_are_moved_while_others_change_are_moved_once(
    database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Business(database, now, CATALOG.format(1).encode())
    for name in ("one", "two"):
        shop.subscribe(shop.customer(name), "pro", "2025-01-01")
    with database.transaction() as tx:
        catalog.apply(tx, CATALOG.format(2).encode(), now=now)
    fail, tries = failing(1, Contended)
    insert = store.insert_change

    def undone(*args: Any) -> None:  # noqa: ANN401 - as insert_change
        insert(*args)
        fail()

    monkeypatch.setattr("convergio.subscriptions.repricing.store.insert_change", undone)
    told: list[int] = []
    moved = repricing.migrate(
        database, price_key="fee", version=2, since=now, now=now, progress=told.append
    )
    assert (moved.changing, moved.left, told) == (2, {}, [2])
    assert len(tries) == 3  # the first customer, undone, and then both
