"""Old months go only when their archive is proved, and nothing of them comes in again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid, Unavailable
from convergio.metering import archive, records, retention, store
from convergio.metering.ingest import Ingestor
from convergio.metering.model import AMEND, VOID, Retention, Segment
from tests.fakes import archives, usage
from tests.fakes.archives import CUSTOMERS, NOVEMBER, NOW, nothing
from tests.fakes.meters import event

DECEMBER_1 = datetime(2024, 12, 1, tzinfo=UTC)
JANUARY_1 = datetime(2025, 1, 1, tzinfo=UTC)
EVENTS = 7 * len(CUSTOMERS)


class Killed(Exception):
    """The process died here."""


def boundary(database: Database) -> Retention:
    with database.transaction() as tx:
        return retention.boundary(tx)


def totals(database: Database, ids: dict[str, UUID]) -> dict[str, object]:
    return {key: usage.totals(database, one) for key, one in ids.items()}


def test_old_months_are_archived_and_deleted_and_their_totals_stay(
    database: Database, tmp_path: Path
) -> None:
    ids = archives.filled(database)
    before = totals(database, ids)
    done = archives.retained(database, tmp_path)
    assert [(one.month, one.rows, one.deleted) for one in done] == [
        ("2024-11", 6 * len(CUSTOMERS), 6 * len(CUSTOMERS)),
        ("2024-12", len(CUSTOMERS), len(CUSTOMERS)),
    ]
    assert boundary(database) == Retention(JANUARY_1, JANUARY_1, None)
    assert usage.stored(database) == 0
    assert totals(database, ids) == before
    assert usage.differences(database) == []
    assert archives.retained(database, tmp_path) == []


def test_the_archive_of_a_deleted_month_is_whole(database: Database, tmp_path: Path) -> None:
    archives.filled(database)
    kept = archives.exported(database, tmp_path / "before", "csv.gz")
    archives.retained(database, tmp_path / "archive")
    path = tmp_path / "archive" / "usage-2024-11.csv.gz"
    assert path.read_bytes() == kept.path.read_bytes()
    records.check_bytes(path, records.read_manifest(path))


def test_only_months_that_are_old_enough_go(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    done = archives.retained(database, tmp_path, months=23)  # before 2024-12-01
    assert [one.month for one in done] == ["2024-11"]
    assert boundary(database).accepts_from == DECEMBER_1
    assert usage.stored(database) == 1
    assert usage.differences(database) == []


def test_fewer_than_eighteen_months_are_refused(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    with pytest.raises(Invalid) as refused:
        archives.retained(database, tmp_path, months=17)
    assert refused.value.field == "--older-than-months"
    assert usage.stored(database) == 7


@pytest.mark.parametrize("billed_until", [None, datetime(2024, 11, 30, 23, 59, tzinfo=UTC)])
def test_a_month_that_is_not_billed_stays_and_stays_open(
    database: Database, tmp_path: Path, billed_until: datetime | None
) -> None:
    archives.filled(database, keys=("acme",))
    with pytest.raises(Conflict) as refused:
        archives.retained(database, tmp_path, billed_until=billed_until)
    assert refused.value.code == "not_billed"
    assert usage.stored(database) == 7
    late = event("late", time=archives.at(5))
    assert usage.send(Ingestor(database), late, now=NOW, importing=True) == ["accepted"]


def test_the_boundary_moves_only_when_months_are_deleted(
    database: Database, tmp_path: Path
) -> None:
    """Data of 2024 comes in in 2026 as long as nothing was let go."""
    archives.bare(database)
    assert archives.retained(database, tmp_path) == []
    assert boundary(database).accepts_from.year == 1970
    old = event("old", time=datetime(2003, 5, 1, tzinfo=UTC))
    assert usage.send(Ingestor(database), old, now=NOW, importing=True) == ["accepted"]


def test_nothing_older_than_the_boundary_is_accepted_by_any_scope(
    database: Database, tmp_path: Path
) -> None:
    ids = archives.filled(database, keys=("acme",))
    stale = Ingestor(database)  # a process that knows the old boundary
    usage.send(stale, event("warm", time=archives.at(6)), now=NOW, importing=True)
    archives.retained(database, tmp_path, months=23)
    before = totals(database, ids)
    again = [*archives.awkward("acme")[:6], event("new", time=archives.at(30))]
    for ingestor in (stale, Ingestor(database), Ingestor(database, back=None)):
        verdicts = ingestor.ingest(again, now=NOW, importing=True)
        assert {verdict.reason for verdict in verdicts} == {"time_too_old"}
        assert all("2024-12-01T00:00:00Z" in str(verdict.detail) for verdict in verdicts)
    on_it = event("on it", time=DECEMBER_1)
    assert usage.send(stale, on_it, now=NOW, importing=True) == ["accepted"]
    assert usage.stored(database) == 2
    assert usage.differences(database) == []
    assert totals(database, ids) != before


def test_an_archive_of_a_closed_month_is_not_imported(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    archives.retained(database, tmp_path)
    with pytest.raises(Conflict) as refused:
        archives.imported(database, tmp_path / "usage-2024-11.csv.gz")
    assert refused.value.code == "time_too_old"


def test_a_deleted_month_is_not_exported_over_its_archive(
    database: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    archives.retained(database, tmp_path)
    path = tmp_path / "usage-2024-11.csv.gz"
    whole = path.read_bytes()
    with pytest.raises(Conflict) as refused:
        archive.export(
            database, NOVEMBER, folder=tmp_path, form="csv.gz", now=NOW, is_replacing=True,
            progress=nothing,
        )  # fmt: skip
    assert refused.value.code == "archived"
    assert path.read_bytes() == whole


@pytest.mark.parametrize("step", range(1, 14))
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Each step of progress is a place to die: while writing, comparing and between deletes."""
    ids = archives.filled(database, keys=("acme", "b"))
    before, seen = totals(database, ids), [0]
    whole = archives.exported(database, tmp_path / "before", "csv.gz").path.read_bytes()
    monkeypatch.setattr(archive, "_PORTION", 4)
    monkeypatch.setattr(retention, "DELETE_BATCH", 4)

    def die(_: int) -> None:
        seen[0] += 1
        if seen[0] == step:
            raise Killed

    try:
        done = archives.retained(database, tmp_path / "archive", progress=die)
    except Killed:
        assert usage.differences(database) == []
        again = event("-2", time=archives.at(2))
        assert usage.send(Ingestor(database), again, now=NOW, importing=True) == ["time_too_old"]
        done = archives.retained(database, tmp_path / "archive")
    assert boundary(database) == Retention(JANUARY_1, JANUARY_1, None)
    assert usage.stored(database) == 0
    assert totals(database, ids) == before
    assert usage.differences(database) == []
    assert len(done) <= 2
    archived = tmp_path / "archive" / "usage-2024-11.csv.gz"
    assert archived.read_bytes() == whole
    names = {path.name for path in archived.parent.iterdir()}
    assert not [name for name in names if name.startswith(".part")]


def killed_between_deletes(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leave November half deleted."""
    monkeypatch.setattr(retention, "DELETE_BATCH", 3)
    real: Callable[..., list[tuple[UUID, UUID]]] = store.delete_events
    calls = [0]

    def second_dies(*args: object, **more: object) -> list[tuple[UUID, UUID]]:
        calls[0] += 1
        if calls[0] == 2:
            raise Killed
        return real(*args, **more)

    monkeypatch.setattr(store, "delete_events", second_dies)
    with pytest.raises(Killed):
        archives.retained(database, folder)
    monkeypatch.setattr(store, "delete_events", real)


def test_a_half_deleted_month_is_not_archived_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.filled(database, keys=("acme",))
    killed_between_deletes(database, tmp_path, monkeypatch)
    half = usage.stored(database)
    assert 0 < half < 7
    path = tmp_path / "usage-2024-11.csv.gz"
    whole = path.read_bytes()
    with pytest.raises(Conflict) as refused:
        archives.exported(database, tmp_path / "other", "csv")
    assert refused.value.code == "archived"
    with pytest.raises(Conflict) as missing:
        archives.retained(database, tmp_path / "elsewhere")
    assert missing.value.code == "archive_missing"
    assert usage.stored(database) == half
    archives.retained(database, tmp_path)
    assert path.read_bytes() == whole
    assert usage.stored(database) == 0


def test_a_half_deleted_month_whose_archive_was_changed_stays(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.filled(database, keys=("acme",))
    killed_between_deletes(database, tmp_path, monkeypatch)
    half = usage.stored(database)
    path = tmp_path / "usage-2024-11.csv.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Conflict) as refused:
        archives.retained(database, tmp_path)
    assert refused.value.code == "archive_missing"
    assert usage.stored(database) == half


@pytest.mark.parametrize(
    "column", [b"properties = '{}'", b"source = 'x'", b"received_at = 'epoch'"]
)
def test_a_file_that_is_not_what_is_stored_deletes_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: bytes
) -> None:
    """What was written and what is stored differ: as a bug, or a bad disk, would make them."""
    archives.filled(database, keys=("acme",))
    real = archive.write_month

    def then_change(*args: object, **more: object) -> records.Manifest:
        manifest: records.Manifest = real(*args, **more)  # type: ignore[arg-type] # as called
        with database.transaction() as tx:
            tx.raw.execute(b"UPDATE usage_event SET %b WHERE event_id = 'nl'" % column)
        return manifest

    monkeypatch.setattr(retention, "write_month", then_change)
    with pytest.raises(Conflict) as refused:
        archives.retained(database, tmp_path)
    assert refused.value.code == "archive_differs"
    assert usage.stored(database) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_leaves_the_door_open(
    database: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(FileExistsError):
        archives.retained(database, blocked)
    assert boundary(database).accepts_from.year == 1970


def test_a_window_across_the_boundary_keeps_its_total_and_is_not_counted_again(
    database: Database, tmp_path: Path
) -> None:
    ids = archives.bare(database, keys=("acme",))
    middle = datetime(2024, 10, 15, tzinfo=UTC)
    usage.lay(database, ids["acme"], Segment(anchor=middle), now=NOW)
    ingestor = Ingestor(database)
    sent = [event(f"e{month}", time=archives.at(20, month=month)) for month in (11, 12)]
    sent.append(event("e0", time=archives.at(10, month=12)))  # in the window of e11
    usage.send(ingestor, *sent, now=NOW, importing=True)
    archives.retained(database, tmp_path, months=23)
    assert usage.stored(database) == 2
    assert usage.differences(database) == []
    for kind, data in ((VOID, {"id": "e0"}), (AMEND, {"id": "e0", "data": {"quantity": 9}})):
        fix = event(f"fix-{kind}", type=kind, time=NOW, data=data)
        assert usage.send(ingestor, fix, now=NOW) == ["time_too_old"]
    with pytest.raises(Conflict) as refused:
        usage.lay(
            database,
            ids["acme"],
            Segment(anchor=middle, starts_at=archives.at(12, month=12)),
            now=NOW,
        )
    assert refused.value.code == "archived"
    assert usage.totals(database, ids["acme"]) == {
        datetime(2024, 11, 15, tzinfo=UTC): "2",
        datetime(2024, 12, 15, tzinfo=UTC): "1",
    }
    void = event("fix", type=VOID, time=NOW, data={"id": "e12"})
    assert usage.send(ingestor, void, now=NOW) == ["accepted"]
    assert usage.differences(database) == []


def test_a_correction_of_a_closed_month_is_refused(database: Database, tmp_path: Path) -> None:
    ids = archives.filled(database, keys=("acme",))
    archives.retained(database, tmp_path, months=23)
    before = totals(database, ids)
    back = event("v", type=VOID, time=archives.at(5), data={"id": "none"})
    assert usage.send(Ingestor(database), back, now=NOW, importing=True) == ["time_too_old"]
    assert totals(database, ids) == before
    assert usage.stored(database) == 1


def test_the_door_waits_for_old_events_that_are_coming_in(
    database: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    with database.transaction() as tx:
        store.share_retention(tx)  # an import is in its transaction
        with database.transaction() as other:
            other.raw.execute(b"SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(Exception, match="holds the same rows"), other.savepoint():
                store.lock_retention(other)


def test_a_corrected_month_is_archived_as_it_counts(database: Database, tmp_path: Path) -> None:
    ids = archives.filled(database, keys=("acme",))
    archives.corrected(database, "acme")
    before = totals(database, ids)
    done = archives.retained(database, tmp_path)
    assert [(one.month, one.rows, one.deleted) for one in done] == [
        ("2024-11", 8, 6),  # with the two corrections, which belong to December
        ("2024-12", 3, 3),
    ]
    assert totals(database, ids) == before
    assert usage.stored(database) == 0


def test_an_unavailable_database_leaves_a_run_to_be_repeated(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.filled(database, keys=("acme",))

    def away(*_: object, **__: object) -> None:
        raise Unavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(store, "save_retention", away)
        with pytest.raises(Unavailable):
            archives.retained(database, tmp_path)
    assert usage.stored(database) == 7
    assert len(archives.retained(database, tmp_path)) == 2


def test_a_boundary_that_moves_while_a_batch_is_read_keeps_it_out(
    database: Database, tmp_path: Path
) -> None:
    archives.bare(database, keys=("acme",))
    ingestor = Ingestor(database)
    usage.send(ingestor, event("e1", time=archives.at(20, month=11)), now=NOW, importing=True)

    class Moving(dict[str, object]):
        """Data that lets the boundary move, and the process see it, when it is read first."""

        def keys(self) -> Any:  # noqa: ANN401 - dict's own view
            if usage.stored(database):
                archives.retained(database, tmp_path, months=23)
                ingestor.customer("nobody", now=NOW + timedelta(seconds=2))
            return super().keys()

    late = event("late", time=archives.at(21, month=11), data=Moving(quantity=1))
    assert usage.send(ingestor, late, now=NOW, importing=True) == ["time_too_old"]
    assert usage.stored(database) == 0
    assert usage.differences(database) == []
