"""The spool: what is added stays until it is settled, across closing, forks and processes."""

import multiprocessing
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from convergio_client import Closed, Invalid, SpoolBroken, SpoolFull
from convergio_client.spool import EVENT, SETTLEMENTS, Item, Refusal, Row, Spool


def items(*names: str, kind: str = EVENT) -> list[Item]:
    return [Item(kind, name, b'{"id":"%s"}' % name.encode()) for name in names]


def claimed(spool: Spool, *, rows_max: int = 100, size_max: int = 10_000) -> list[Row]:
    return spool.claim((EVENT,), rows_max=rows_max, size_max=size_max)


def names(rows: list[Row]) -> list[str]:
    return [row.target for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.spool"


def test_what_is_added_is_there_after_opening_again_oldest_first(path: Path) -> None:
    first = Spool(path)
    first.add(items("a", "b"))
    first.add(items("c"))
    first.close()
    again = Spool(path)
    assert names(claimed(again)) == ["a", "b", "c"]
    again.close()


def test_the_file_is_readable_by_its_owner_only(path: Path) -> None:
    spool = Spool(path)
    spool.add(items("a"))
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    spool.close()


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_each_durability_is_what_sqlite_calls_it(path: Path, durability: str, level: int) -> None:
    spool = Spool(path, durability=durability)  # type: ignore[arg-type]  # parametrized text
    with spool.transaction() as run:
        assert run.execute("PRAGMA synchronous").fetchone() == (level,)
        assert run.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    spool.close()


def test_two_that_share_a_file_never_hold_the_same_row(path: Path) -> None:
    one, two = Spool(path), Spool(path)
    one.add(items("a", "b", "c"))
    assert names(claimed(one, rows_max=2)) == ["a", "b"]
    assert names(claimed(two)) == ["c"]
    assert claimed(one) == []
    one.close()
    two.close()


def test_a_claim_whose_owner_died_is_free_when_its_lease_ends(path: Path) -> None:
    dead, heir = Spool(path, lease_seconds=0.05), Spool(path)
    dead.add(items("a"))
    late = claimed(dead)
    time.sleep(0.1)
    assert names(claimed(heir)) == ["a"]
    dead.settle(late)
    assert heir.load()[0] == 1, "what another process holds now is its own to settle"
    dead.close()
    heir.close()


def test_rows_that_are_given_back_are_free_at_once(path: Path) -> None:
    spool = Spool(path)
    spool.add(items("a"))
    spool.give_back(claimed(spool))
    assert names(claimed(spool)) == ["a"]
    spool.close()


def test_a_claim_is_bounded_in_bytes_and_takes_at_least_one(path: Path) -> None:
    spool = Spool(path)
    spool.add([Item(EVENT, str(n), b"x" * 100) for n in range(5)])
    assert len(claimed(spool, size_max=250)) == 2
    assert len(claimed(spool, size_max=1)) == 1
    spool.close()


def test_kinds_are_claimed_apart(path: Path) -> None:
    spool = Spool(path)
    spool.add([*items("e"), *items("r", kind="release"), *items("c", kind="commit")])
    assert names(spool.claim(SETTLEMENTS, rows_max=9, size_max=9_999)) == ["r", "c"]
    assert names(claimed(spool)) == ["e"]
    spool.close()


def test_refused_rows_are_kept_with_their_reason_until_dealt_with(path: Path) -> None:
    spool = Spool(path)
    spool.add(items("a", "b"))
    rows = claimed(spool)
    moved = spool.settle(rows[:1], [Refusal(rows[1], "unknown_customer", "make it")])
    found = list(spool.rejected())
    assert found == moved
    assert [(one.target, one.reason, one.detail) for one in found] == [
        ("b", "unknown_customer", "make it")
    ]
    assert spool.load()[0] == 0
    spool.resend(found)
    assert list(spool.rejected()) == []
    again = claimed(spool)
    assert [row.body for row in again] == [rows[1].body]
    spool.settle([], [Refusal(again[0], "x", "")])
    spool.forget(list(spool.rejected()))
    assert spool.load() == (0, 0, 0)
    spool.close()


def test_a_full_spool_refuses_the_whole_addition(path: Path) -> None:
    spool = Spool(path, rows_max=3)
    spool.add(items("a", "b"))
    with pytest.raises(SpoolFull, match="full"):
        spool.add(items("c", "d"))
    assert spool.load()[0] == 2
    spool.add(items("c"))
    spool.settle(claimed(spool))
    spool.add(items("e", "f", "g"))
    spool.close()


def test_bytes_are_bounded_and_rejected_ones_count(path: Path) -> None:
    spool = Spool(path, size_max=25)
    spool.add(items("a", "b"))
    rows = claimed(spool)
    spool.settle([], [Refusal(rows[0], "x", ""), Refusal(rows[1], "x", "")])
    with pytest.raises(SpoolFull):
        spool.add(items("c"))
    spool.close()


def test_a_full_spool_waits_for_room_as_long_as_it_was_told(path: Path) -> None:
    spool = Spool(path, rows_max=1, wait_seconds=10)
    spool.add(items("a"))
    later = threading.Timer(0.1, lambda: spool.settle(claimed(spool)))
    later.start()
    spool.add(items("b"))
    later.join()
    assert names(claimed(spool)) == ["b"]
    spool.close()
    short = Spool(path, rows_max=1, wait_seconds=0.05)
    with pytest.raises(SpoolFull):
        short.add(items("c"))
    short.close()


def test_a_file_that_is_no_spool_is_named(path: Path) -> None:
    path.write_bytes(b"this is not a database, it only looks like one" * 100)
    spool = Spool(path)
    with pytest.raises(SpoolBroken, match=r"usage\.spool"):
        spool.add(items("a"))
    spool.close()


def test_a_spool_of_a_newer_client_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    spool = Spool(path)
    with pytest.raises(SpoolBroken, match="version"):
        spool.add(items("a"))
    spool.close()


def test_a_closed_spool_takes_nothing(path: Path) -> None:
    spool = Spool(path)
    spool.add(items("a"))
    spool.close()
    with pytest.raises(Closed):
        spool.add(items("b"))


@pytest.mark.parametrize("wrong", [{"rows_max": 0}, {"lease_seconds": 0}, {"durability": "hope"}])
def test_wrong_settings_are_refused(path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        Spool(path, **wrong)  # type: ignore[arg-type]  # wrong values are the point


def _add_many(spool: Spool, prefix: str) -> None:
    for number in range(50):
        spool.add(items(f"{prefix}{number}"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_carries_no_connection_and_loses_nothing(path: Path) -> None:
    spool = Spool(path)
    spool.add(items("parent"))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_add_many, args=(spool, f"{n}-")) for n in range(3)]
    for child in children:
        child.start()
    _add_many(spool, "p-")
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert spool.load()[0] == 1 + 50 * 4
    assert len(claimed(spool, rows_max=999, size_max=99_999)) == 201
    spool.close()
