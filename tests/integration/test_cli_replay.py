"""`convergio replay`: files small and real go through the real ingest, once."""

import csv
import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid, NotFound, Rejected
from convergio.metering import actions as metering
from convergio.subscriptions import actions as subscriptions
from tests.arch import house

HOWTO = house.ROOT / "docs" / "howto"
MAPPING = """
[source]
name = "urn:test"
format = "csv"

[event]
type = "ai.request"
time = {column = "at", format = "%Y-%m-%d %H:%M:%S"}
customer = {column = "who"}

[data.status]
column = "state"
map = {SUCCEED = "succeeded", FAILED = "failed"}

[data.quantity]
column = "n"
number = true
"""
HEADER = "at,who,state,n\n"
GOOD = (
    "2024-11-30 23:59:59,ada,SUCCEED,2.0\n"
    "2024-12-01 00:00:00,ada,SUCCEED,3\n"
    "2024-12-01 00:00:00,bob,SUCCEED,\n"
    "2024-12-01 00:00:00,bob,FAILED,9\n"
)
NEW = ("--create-customers", "--plan", "pro", "--start", "2024-11-01T00:00:00Z")

Call = Callable[..., Result]
Replay = Callable[..., Result]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command line whose current folder, home and database are this test's own."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def replay(call: Call, tmp_path: Path) -> Replay:
    """Write the rows to `trace.csv` and replay it."""

    def run(content: str | bytes, *words: str, mapping: str = MAPPING) -> Result:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / "trace.csv").write_bytes(raw)
        (tmp_path / "mapping.toml").write_text(mapping, encoding="utf-8")
        return call("replay", "trace.csv", "--mapping", "mapping.toml", *words, "--json")

    return run


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def counts(result: Result) -> tuple[int, ...]:
    """Return rows, accepted, duplicate, conflict, rejected, unmapped, customers_created."""
    value = answer(result)
    assert list(value) == [
        "rows",
        "accepted",
        "duplicate",
        "conflict",
        "rejected",
        "unmapped",
        "customers_created",
        "seconds",
        "events_per_second",
    ]
    return tuple(list(value.values())[:7])


def usage(call: Call, meter: str, *words: str) -> dict[str, str]:
    found = answer(call("usage", "--meter", meter, "--by", "month", *words, "--json"))
    return {row["period"]: row["quantity"] for row in found["usage"]}


def rejected(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_trace_counts_once_and_its_customers_are_on_their_plan(
    call: Call, replay: Replay, database: Database, tmp_path: Path
) -> None:
    assert counts(replay(HEADER + GOOD, *NEW)) == (4, 4, 0, 0, 0, 0, 2)
    again = replay(gzip.compress((HEADER + GOOD).encode()), *NEW)
    assert counts(again) == (4, 0, 4, 0, 0, 0, 0)
    assert usage(call, "questions") == {"2024-11": "2", "2024-12": "4"}
    assert usage(call, "questions", "--customer", "bob") == {"2024-12": "1"}
    assert not list(tmp_path.glob("*.rejected.csv"))
    with database.transaction() as tx:
        assert subscriptions.count_billable(tx) == 2
        assert not metering.verify(tx)


def test_a_customer_that_exists_is_left_without_a_plan(
    call: Call, replay: Replay, database: Database
) -> None:
    answer(call("customer", "create", "ada", "--json"))
    assert counts(replay(HEADER + GOOD, *NEW)) == (4, 4, 0, 0, 0, 0, 1)
    with database.transaction() as tx:
        assert subscriptions.count_billable(tx) == 1


def test_bad_rows_are_told_and_kept_and_the_rest_go_in(
    call: Call, replay: Replay, tmp_path: Path
) -> None:
    bad = (
        "2024-12-01 00:00:00,ada,CANCELED,1\n"
        "yesterday,ada,SUCCEED,1\n"
        "2999-01-01 00:00:00,ada,SUCCEED,1\n"
        "1969-01-01 00:00:00,ada,SUCCEED,1\n"
        "2024-12-01 00:00:00,ada,SUCCEED,-1\n"
        '"=2024,ada,SUCCEED,1\n'
    )
    result = replay(HEADER + bad + GOOD, *NEW)
    assert counts(result) == (10, 4, 0, 0, 3, 3, 2)
    assert "line 2: not_in_map data.status: the value is not in data.status.map" in result.stderr
    assert "6 rows did not count; they are in trace.csv.rejected.csv" in result.stderr
    path = tmp_path / "trace.csv.rejected.csv"
    found = rejected(path)
    assert sorted((int(row[0]), row[1], row[2]) for row in found) == [
        (2, "not_in_map", "data.status"),
        (3, "bad_time", "event.time"),
        (4, "time_ahead", "time"),
        (5, "time_too_old", "time"),
        (6, "bad_quantity", "data.quantity"),
        (7, "bad_row", ""),
    ]
    assert found[0][4] == "2024-12-01 00:00:00,ada,CANCELED,1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert usage(call, "questions") == {"2024-11": "2", "2024-12": "4"}


def test_an_unknown_customer_is_rejected_with_the_way_to_make_it(
    call: Call, replay: Replay, tmp_path: Path
) -> None:
    answer(call("customer", "create", "bob", "--json"))
    result = replay(HEADER + GOOD, "--rejects", "out/bad.csv")
    assert isinstance(result.exception, Invalid)
    assert result.exception.field == "--rejects"
    result = replay(HEADER + GOOD, "--rejects", "bad.csv")
    assert counts(result) == (4, 2, 0, 0, 2, 0, 0)
    assert "--create-customers" in result.stderr
    assert [row[:3] for row in rejected(tmp_path / "bad.csv")] == [
        ["2", "unknown_customer", "subject"],
        ["3", "unknown_customer", "subject"],
    ]


def test_an_id_with_another_payload_is_a_conflict_and_changes_nothing(
    call: Call, replay: Replay, tmp_path: Path
) -> None:
    answer(replay(HEADER + GOOD, *NEW))
    changed = HEADER + GOOD.replace("SUCCEED,3", "SUCCEED,300")
    assert counts(replay(changed, *NEW)) == (4, 0, 3, 1, 0, 0, 0)
    assert [row[:2] for row in rejected(tmp_path / "trace.csv.rejected.csv")] == [
        ["3", "other_payload"]
    ]
    assert usage(call, "questions") == {"2024-11": "2", "2024-12": "4"}


def test_a_limit_stops_early_and_the_rest_follows_later(replay: Replay) -> None:
    assert counts(replay(HEADER + GOOD, *NEW, "--limit", "1")) == (1, 1, 0, 0, 0, 0, 1)
    assert counts(replay(HEADER + GOOD, *NEW)) == (4, 3, 1, 0, 0, 0, 1)


def test_events_before_the_start_of_the_plan_are_pointed_out(replay: Replay) -> None:
    late = (*NEW[:-1], "2024-12-01T00:00:00Z")
    result = replay(HEADER + GOOD, *late)
    assert "1 events lie before --start" in result.stderr


def test_a_property_that_the_catalog_does_not_list_is_pointed_out(replay: Replay) -> None:
    result = replay(HEADER + GOOD, *NEW, mapping=MAPPING.replace("data.quantity", "data.quantit"))
    assert "data.quantit is not kept" in result.stderr


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (gzip.compress((HEADER + GOOD * 9).encode())[:-20], NEW, (Invalid, "trace.csv")),
        ((HEADER + GOOD).encode() + b"caf\xe9,1,2,3\n", NEW, (Invalid, "trace.csv")),
        (HEADER.replace("at", "when") + GOOD, NEW, (Invalid, "event.time.column")),
        ("", NEW, (Invalid, "trace.csv")),
        (
            HEADER + GOOD,
            ("--create-customers", "--start", "2024-11-01T00:00:00Z"),
            (Invalid, "--plan"),
        ),
        (HEADER + GOOD, ("--create-customers", "--plan", "pro"), (Invalid, "--start")),
        (HEADER + GOOD, ("--plan", "pro"), (Invalid, "--plan")),
        (HEADER + GOOD, (*NEW[:-1], "yesterday"), (Invalid, "--start")),
        (HEADER + GOOD, (*NEW[:-1], "2999-01-01T00:00:00Z"), (Invalid, "start")),
        (HEADER + GOOD, (*NEW, "--timezone", "Mars/Base"), (Invalid, "--timezone")),
        (HEADER + GOOD, ("--create-customers", "--plan", "gold", *NEW[3:]), (NotFound, "plan")),
        (HEADER + GOOD, ("--key", "KEY"), (Invalid, "--key")),
        (HEADER + GOOD, ("--to", "http://127.0.0.1:9"), (Invalid, "--key")),
        (HEADER + GOOD, ("--to", "http://127.0.0.1:9", "--key", "NO_SUCH_KEY"), (Invalid, "--key")),
        (HEADER + GOOD, ("--to", "http://127.0.0.1:9", *NEW), (Invalid, "--create-customers")),
        (HEADER + GOOD, ("--to", "http://example.com", "--key", "K"), (Invalid, "--to")),
        (HEADER + GOOD, (*NEW, "--rejects", "trace.csv"), (Invalid, "--rejects")),
    ],
    ids=lambda value: "file" if isinstance(value, bytes | str) else None,
)
def test_what_is_wrong_with_the_whole_is_told_before_anything_is_stored(
    call: Call,
    replay: Replay,
    content: str | bytes,
    words: tuple[str, ...],
    told: tuple[type[Rejected], str],
) -> None:
    result = replay(content, *words)
    assert isinstance(result.exception, Rejected)
    assert (type(result.exception), result.exception.field) == told
    assert len(str(result.exception).splitlines()) == 1
    assert usage(call, "questions") == {}
    assert answer(call("customer", "list", "--json"))["customers"] == []


def test_an_unknown_event_type_is_told_before_anything_is_stored(
    call: Call, replay: Replay
) -> None:
    result = replay(HEADER + GOOD, *NEW, mapping=MAPPING.replace("ai.request", "ai.other"))
    assert isinstance(result.exception, Invalid)
    assert result.exception.field == "event.type"
    assert answer(call("customer", "list", "--json"))["customers"] == []


def test_a_file_that_breaks_half_way_keeps_what_was_committed(
    call: Call, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check at the start is passed over, as when the file changes while it is read
    monkeypatch.setattr("convergio.cli.replay.count_lines", lambda _: 5)
    monkeypatch.setattr("convergio.simulation.replay.InProcess.batch_size", 2)
    result = replay((HEADER + GOOD).encode() + b"caf\xe9,1,2,3\n", *NEW)
    assert isinstance(result.exception, Invalid)
    assert "line 6 is not UTF-8" in str(result.exception)
    assert "stopped: 4 events were accepted and stay" in result.stderr
    assert usage(call, "questions") == {"2024-11": "2", "2024-12": "4"}


def test_alibaba_s_trace_counts_to_the_row(call: Call, shared: Path) -> None:
    trace = shared / "data" / "gentd26_lora_request_trace.csv.gz"
    words = ("replay", str(trace), "--mapping", str(HOWTO / "gentd26.toml"), *NEW, "--json")
    assert counts(call(*words)) == (26_823, 26_823, 0, 0, 0, 0, 4_247)
    expected = {"2024-11": "14033", "2024-12": "12359"}
    assert usage(call, "questions") == expected
    assert usage(call, "images") == {"2024-11": "37802", "2024-12": "33420"}
    assert counts(call(*words)) == (26_823, 0, 26_823, 0, 0, 0, 0)
    assert usage(call, "questions") == expected


@pytest.mark.parametrize(
    ("trace", "columns"),
    [
        (
            ("azure", "AzureLLMInferenceTrace_conv.csv.gz", "azure_llm_2023_conv"),
            ("ContextTokens", "GeneratedTokens"),
        ),
        (
            ("mooncake", "mooncake_conversation_trace.jsonl.gz", "mooncake_conversation"),
            ("input_length", "output_length"),
        ),
    ],
)
def test_each_row_feeds_three_meters_to_the_exact_total(
    call: Call, shared: Path, trace: tuple[str, str, str], columns: tuple[str, str]
) -> None:
    name, file, key = trace
    answer(call("customer", "create", name, "--json"))
    mapping = str(HOWTO / f"{name}.toml")
    found = answer(call("replay", str(shared / "data" / file), "--mapping", mapping, "--json"))
    expected = json.loads((shared / "data" / "expected.json").read_text(encoding="utf-8"))[key]
    assert found["accepted"] == found["rows"] == expected["rows"]
    assert list(usage(call, "questions").values()) == [str(expected["rows"])]
    for meter, column in zip(("tokens_in", "tokens_out"), columns, strict=True):
        total = expected["totals"][column]["sum"]
        assert list(usage(call, meter, "--customer", name).values()) == [str(total)]


def test_college_messages_fall_into_their_months(call: Call, shared: Path) -> None:
    trace = str(shared / "data" / "CollegeMsg.txt.gz")
    start = (*NEW[:2], "free", "--start", "2004-04-01T00:00:00Z")
    words = ("--mapping", str(HOWTO / "collegemsg.toml"), *start, "--json")
    assert counts(call("replay", trace, *words)) == (59_835, 59_835, 0, 0, 0, 0, 1_350)
    expected = json.loads((shared / "data" / "expected.json").read_text(encoding="utf-8"))
    months = expected["collegemsg"]["per_utc_month"]
    assert usage(call, "questions") == {month: str(months[month]["count"]) for month in months}


def test_an_access_log_out_of_order_falls_into_its_days(call: Call, shared: Path) -> None:
    trace = str(shared / "data" / "elastic_apache_logs.log.gz")
    start = (*NEW[:2], "free", "--start", "2015-05-01T00:00:00Z")
    words = ("--mapping", str(HOWTO / "apache.toml"), *start, "--json")
    assert counts(call("replay", trace, *words)) == (10_000, 10_000, 0, 0, 0, 0, 1_753)
    found = answer(call("usage", "--meter", "questions", "--by", "day", "--json"))["usage"]
    expected = json.loads((shared / "data" / "expected.json").read_text(encoding="utf-8"))
    days = expected["elastic_apache"]["per_utc_day"]
    assert {one["period"]: int(one["quantity"]) for one in found} == {
        day: days[day]["count"] for day in days
    }
