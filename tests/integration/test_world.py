"""A simulated business: its books always reconcile, and the same seed lives the same life."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from convergio.cli.demo import summary
from convergio.cli.main import app
from convergio.infra.clock import VirtualClock
from convergio.infra.scratch import scratch
from convergio.infra.settings import Settings
from convergio.kernel.errors import Conflict, Fault, Invalid, Unavailable
from convergio.kernel.periods import Period
from convergio.simulation.world import Tally, World
from convergio.wiring import App, opened

DURING = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


@contextmanager
def lived(dsn: str, home: Path, *, seed: int, size: int = 20) -> Iterator[tuple[App, Tally]]:
    clock = VirtualClock(DURING.start)
    with scratch(dsn) as url, opened(Settings(home=str(home)), clock=clock, url=url) as product:
        world = World(product, clock, seed=seed, size=size, during=DURING)
        days: list[int] = []
        tally = world.live(days.append)
        assert sum(days) == world.days
        yield product, tally


def figures(dsn: str, home: Path, *, seed: int) -> dict[str, Any]:
    with lived(dsn, home, seed=seed, size=8) as (product, tally):
        return summary(product, tally)


def value(product: App, query: str) -> Any:  # noqa: ANN401 - any column
    with product.database.transaction() as tx:
        row = tx.raw.execute(query.encode()).fetchone()
        return row and row[0]


def test_a_business_lives_two_months_and_its_books_reconcile(dsn: str, tmp_path: Path) -> None:
    with lived(dsn, tmp_path, seed=7) as (product, tally):
        books = summary(product, tally)
        assert (books["differences"], books["problems"]) == ([], [])
        assert books["reconciles"]
        assert len(books["checks"]) >= 6
        people = books["customers"]
        assert sum(people["plans"].values()) + people["canceled"] == 20
        assert books["events"]["accepted"] == value(product, "SELECT count(*) FROM usage_event")
        assert min(books["events"].values()) > 0
        assert books["quota"]["denied"]["limit_reached"] > 0
        most = "SELECT max(used + reserved) FROM usage_total WHERE quota_limit = 50"
        assert value(product, most) <= 50
        assert books["invoices"]["issued"] == value(product, "SELECT count(*) FROM invoice")
        assert books["payments"]["succeeded"] == books["invoices"]["paid"] > 0
        assert books["payments"]["declined"] > 0
        charged = "SELECT sum(amount)::numeric / 100 FROM sandbox.charge WHERE outcome = %s"
        taken = value(product, charged.replace("%s", "'succeeded'"))
        assert books["collected"] == f"{taken:.2f}"
        assert sorted(books["documents"]) == ["en", "it"]
        for path in books["documents"].values():
            assert Path(path).read_bytes().startswith(b"%PDF-")


def test_the_same_seed_gives_the_same_figures_and_another_seed_others(
    dsn: str, tmp_path: Path
) -> None:
    first, again, other = (figures(dsn, tmp_path, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first["reconciles"]
    assert other["reconciles"]


def test_a_world_lives_on_its_products_clock_only(dsn: str, tmp_path: Path) -> None:
    clock = VirtualClock(DURING.start)
    with (
        opened(Settings(home=str(tmp_path)), clock=clock, url=dsn) as product,
        pytest.raises(Fault),
    ):
        World(product, VirtualClock(DURING.start), seed=1, size=1, during=DURING)


def test_the_demo_command_ends_with_its_books_as_one_json_value(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path))
    words = ("demo", "--customers", "2", "--months", "1")
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exception is None, result.exception
    books = json.loads(result.stdout.splitlines()[-1])
    assert (books["seed"], books["from"], books["until"]) == (7, "2026-01-01", "2026-02-01")
    assert books["reconciles"]
    for number in books["documents"].values():
        assert Path(number).name.startswith("DEMO-2026-")
    shown = CliRunner().invoke(app, words).stdout
    assert "Do the books reconcile?" in shown
    assert "password" not in shown
    assert "DATABASE_URL=..._demo" in shown


def test_a_scratch_database_is_empty_each_time_and_its_neighbour_is_left_alone(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")
    for _ in range(2):
        with scratch(dsn) as url, psycopg.connect(url, autocommit=True) as connection:
            assert connection.info.dbname.endswith("_demo")
            connection.execute("CREATE TABLE fresh ()")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT FROM kept")


def test_a_database_that_happens_to_have_the_name_is_never_dropped(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = f"{connection.info.dbname}_demo"
        connection.execute(f"CREATE DATABASE {name}".encode())
        with pytest.raises(Conflict, match="drop or rename"), scratch(dsn):
            pass
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
        assert found.rowcount == 1


def test_two_demos_do_not_take_each_others_database(dsn: str) -> None:
    with scratch(dsn), pytest.raises(Unavailable, match="another demo"), scratch(dsn):
        pass


def test_who_may_not_create_a_database_is_told_the_mend(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        role = f"poor_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    poor = psycopg.conninfo.make_conninfo(dsn, user=role)
    with pytest.raises(Unavailable, match="CREATEDB"), scratch(poor):
        pass


@pytest.mark.parametrize("text", ["postgresql://u:hunter2@[/x", "host=x hunter2"])
def test_a_connection_string_that_is_none_is_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as refused, scratch(text):
        pass
    assert refused.value.field == "DATABASE_URL"
    assert "hunter2" not in str(refused.value)
