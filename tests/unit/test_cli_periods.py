"""`convergio periods`: the periods that billing would store, and errors that name the option."""

import json
import subprocess
import sys
from typing import Any

import pytest

from convergio.cli.periods import periods
from convergio.kernel.errors import Invalid

ANCHOR = "2025-01-31T15:00:00Z"
ROME = {"anchor": ANCHOR, "interval": "month", "timezone": "Europe/Rome", "count": "12"}


def listed(**options: str) -> list[dict[str, Any]]:
    return periods(**{**ROME, **options})


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convergio.cli.main", "periods", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_months_keep_the_local_hour_and_the_original_day() -> None:
    found = listed()
    assert [period["number"] for period in found] == list(range(12))
    assert [period["start"] for period in found[:3]] == [
        "2025-01-31T15:00:00Z",
        "2025-02-28T15:00:00Z",
        "2025-03-31T14:00:00Z",
    ]
    assert found[-1]["end"] == "2026-01-31T15:00:00Z"


@pytest.mark.parametrize(
    ("interval", "end"),
    [
        ("day", "2025-02-01T15:00:00Z"),
        ("week", "2025-02-07T15:00:00Z"),
        ("month", "2025-02-28T15:00:00Z"),
        ("quarter", "2025-04-30T14:00:00Z"),
        ("year", "2026-01-31T15:00:00Z"),
    ],
)
def test_every_interval_ends_where_the_local_calendar_says(interval: str, end: str) -> None:
    assert listed(interval=interval, count="1") == [{"number": 0, "start": ANCHOR, "end": end}]


def test_a_skipped_local_time_moves_forward_and_a_doubled_one_is_the_first() -> None:
    gap = listed(anchor="2025-03-29T01:30:00Z", interval="day", count="2")
    assert [period["end"] for period in gap] == ["2025-03-30T01:30:00Z", "2025-03-31T00:30:00Z"]
    fold = listed(anchor="2025-10-25T00:30:00Z", interval="day", count="2")
    assert [period["end"] for period in fold] == ["2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "2025-01-31"}, "--anchor: "),
        ({"anchor": "2025-01-31T15:00:00"}, "--anchor: "),
        ({"anchor": "2025-02-30T15:00:00Z"}, "--anchor: "),
        ({"anchor": "0001-01-01T00:00:00Z"}, "--anchor: "),
        ({"anchor": "9999-12-31T23:00:00Z"}, "--anchor: "),
        ({"anchor": "8999-01-01T00:00:00Z", "interval": "day", "count": "10000"}, "--anchor: "),
        ({"anchor": "8999-01-01T00:00:00Z", "interval": "year"}, "--anchor: "),
        ({"timezone": "Mars/Olympus"}, "--timezone: "),
        ({"timezone": "../etc/passwd"}, "--timezone: "),
        ({"timezone": ""}, "--timezone: "),
        ({"count": "0"}, "--count: "),
        ({"count": "-1"}, "--count: "),
        ({"count": "1.5"}, "--count: "),
        ({"count": "10001"}, "--count: "),
        ({"count": "\u0663"}, "--count: "),
        ({"interval": "fortnight"}, "--interval: "),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        listed(**options)
    assert str(caught.value).startswith(message)


def test_the_command_prints_json_or_a_table() -> None:
    arguments = ["--anchor", ANCHOR, "--timezone", "Europe/Rome", "--count", "2"]
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == listed(count="2")
    assert run(*arguments).stdout.splitlines()[1].split() == [
        "0", "2025-01-31T15:00:00Z", "2025-02-28T15:00:00Z",
    ]  # fmt: skip


def test_a_refused_command_says_it_in_one_line() -> None:
    done = run("--anchor", ANCHOR, "--timezone", "Mars/Olympus")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("convergio: --timezone: ")
    assert done.stderr.count("\n") == 1
