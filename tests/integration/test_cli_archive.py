"""`convergio usage export | import | retain`, and `convergio usage` as it always was."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.settings import Settings
from convergio.kernel.errors import Conflict, Invalid
from convergio.metering.model import Retention
from convergio.metering.retention import boundary
from convergio.wiring import opened
from convergio.worker import chores
from tests.fakes import archives, usage
from tests.fakes.archives import NOW

Call = Callable[..., Result]


@pytest.fixture
def call(database: Database, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    archives.filled(database, keys=("acme",))
    return lambda *words: CliRunner().invoke(app, words)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_usage_without_a_subcommand_is_what_it_was(call: Call) -> None:
    found = answer(call("usage", "--meter", "questions", "--by", "month", "--json"))
    assert found == {
        "meter": "questions",
        "by": "month",
        "time_zone": "UTC",
        "usage": [
            {
                "start": "2024-11-01T00:00:00Z",
                "period": "2024-11",
                "quantity": "123456792.100000001",
                "events": 5,
            },
            {"start": "2024-12-01T00:00:00Z", "period": "2024-12", "quantity": "40", "events": 1},
        ],
    }
    assert "2024-11" in call("usage", "--meter", "questions").stdout


def test_usage_without_a_meter_says_which_option_is_missing(call: Call) -> None:
    refused = call("usage").exception
    assert isinstance(refused, Invalid)
    assert refused.field == "--meter"


@pytest.mark.parametrize("name", ["export", "import", "retain"])
def test_each_subcommand_shows_an_example(call: Call, name: str) -> None:
    shown = call("usage", name, "--help").stdout
    assert f"Example: convergio usage {name}" in " ".join(shown.split())


def test_a_month_goes_out_and_comes_in(call: Call, tmp_path: Path) -> None:
    words = ("usage", "export", "--month", "2024-11", "--out", str(tmp_path / "out"))
    made = answer(call(*words, "--format", "parquet", "--json"))
    assert (made["rows"], made["month"]) == (6, "2024-11")
    assert made["meters"]["questions"] == {"events": 5, "quantity": "123456792.100000001"}
    assert "6 events" in call(*words, "--format", "csv").stdout
    again = answer(call("usage", "import", made["path"], "--json"))
    assert {name: again[name] for name in ("files", "rows", "accepted", "duplicate")} == {
        "files": 1, "rows": 6, "accepted": 0, "duplicate": 6,
    }  # fmt: skip
    assert isinstance(call(*words, "--format", "csv").exception, Conflict)
    assert call(*words, "--format", "csv", "--replace").exception is None


def test_one_bad_file_of_several_stops_all_of_them(
    call: Call, database: Database, tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path), "--json")
    good = answer(call("usage", "export", "--month", "2024-11", *out))["path"]
    bad = answer(call("usage", "export", "--month", "2024-12", *out))["path"]
    Path(bad).write_text("", encoding="utf-8")
    with database.transaction() as tx:
        tx.raw.execute(b"DELETE FROM usage_event")
    refused = call("usage", "import", good, bad).exception
    assert isinstance(refused, Invalid)
    assert refused.field == "usage-2024-12.csv"
    assert usage.stored(database) == 0


def test_an_import_that_refuses_events_exits_with_1(
    call: Call, database: Database, tmp_path: Path
) -> None:
    made = answer(call("usage", "export", "--month", "2024-11", "--out", str(tmp_path), "--json"))
    with database.transaction() as tx:
        tx.raw.execute(b"UPDATE usage_event SET received_at = 'epoch', occurred_at = occurred_at"
                       b" + interval '1 second' WHERE event_id = 'nl'")  # fmt: skip
    done = call("usage", "import", made["path"], "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout.splitlines()[-1])["refused"] == 1
    assert "other_payload" in done.stderr


def test_old_months_wait_for_billing_and_then_go(call: Call, tmp_path: Path) -> None:
    refused = call("usage", "retain").exception
    assert isinstance(refused, Conflict)
    assert refused.code == "not_billed"
    assert "convergio bill" in refused.detail
    answer(call("bill", "--json"))
    done = answer(call("usage", "retain", "--json"))
    assert [one["month"] for one in done["months"]] == ["2024-11", "2024-12"]
    assert done["accepts_from"] == "2025-01-01T00:00:00Z"
    kept = {path.name for path in (tmp_path / "home" / "archive").iterdir()}
    assert "usage-2024-11.csv.gz" in kept
    assert "usage-2024-11.csv.gz.manifest.json" in kept
    assert answer(call("verify", "--json")) is not None
    found = answer(call("usage", "--meter", "questions", "--json"))
    assert found["events_kept_from"] == "2025-01-01T00:00:00Z"
    assert "no month is old enough" in call("usage", "retain").stdout


def test_seventeen_months_are_refused(call: Call) -> None:
    refused = call("usage", "retain", "--older-than-months", "17").exception
    assert isinstance(refused, Invalid)
    assert refused.field == "--older-than-months"


def test_the_worker_lets_nothing_go_unless_it_is_told(
    call: Call, database: Database, dsn: str, tmp_path: Path
) -> None:
    answer(call("bill", "--json"))
    for months, left in ((0, 7), (18, 0)):
        settings = Settings(home=str(tmp_path / "home"), usage_keep_months=months)
        with opened(settings, url=dsn, clock=VirtualClock(NOW)) as product:
            chores(product)["convergio.retain_usage"].work()
        assert usage.stored(database) == left
    with database.transaction() as tx:
        end = datetime(2025, 1, 1, tzinfo=UTC)
        assert boundary(tx) == Retention(end, end, None)


def test_a_spreadsheet_reads_the_csv_as_text(call: Call, tmp_path: Path) -> None:
    made = answer(call("usage", "export", "--month", "2024-11", "--out", str(tmp_path), "--json"))
    with Path(made["path"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} >= {"'=1+1", "'-2", "''q", 'a "b", c'}
    assert {row["source"] for row in rows} == {"'@src", "test"}
