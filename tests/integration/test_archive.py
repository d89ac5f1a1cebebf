"""A month goes out and comes in again as it was; a file that is not whole counts nothing."""

import gzip
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from convergio.infra import postgres
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid, Rejected, Unavailable
from convergio.metering import archive, records
from convergio.metering.archive import Tally
from convergio.metering.ingest import Ingestor
from tests.fakes import archives, usage
from tests.fakes.archives import CUSTOMERS, DECEMBER, NOVEMBER, NOW, nothing
from tests.fakes.meters import event

FORMS = ("csv", "csv.gz", "parquet")
ROWS = 6 * len(CUSTOMERS)


@pytest.fixture
def other(server: postgres.Embedded, template: str) -> Iterator[Database]:
    """A second, empty database."""
    name = f"other_{uuid4().hex}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        with Database(server.dsn(name)) as opened:
            yield opened
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def totals(database: Database, ids: dict[str, UUID], meter: str = "questions") -> dict[str, object]:
    return {key: usage.totals(database, one, meter) for key, one in ids.items()}


@pytest.mark.parametrize("form", FORMS)
def test_an_export_comes_in_elsewhere_with_the_same_totals(
    database: Database, other: Database, tmp_path: Path, form: str
) -> None:
    ids = archives.filled(database)
    archives.corrected(database, "acme")
    done = archives.exported(database, tmp_path, form)
    assert done.path.name == f"usage-2024-11.{form}"
    assert done.manifest.rows == ROWS + 2  # the corrections of December speak of November
    there = archives.bare(other)
    tally = archives.imported(other, done.path)
    assert (tally.accepted, tally.duplicate, tally.refused) == (ROWS + 2, 0, 0)
    archives.imported(other, archives.exported(database, tmp_path, form, DECEMBER).path)
    for meter in ("questions", "images"):
        assert totals(other, there, meter) == totals(database, ids, meter)
    assert usage.differences(other) == []
    again = archives.imported(other, done.path)
    assert (again.accepted, again.duplicate, again.refused) == (0, ROWS + 2, 0)
    assert totals(other, there) == totals(database, ids)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_of_an_import_holds_the_same_events(
    database: Database, other: Database, tmp_path: Path, form: str
) -> None:
    archives.filled(database)
    first = archives.exported(database, tmp_path / "first", form)
    archives.bare(other)
    archives.imported(other, first.path)
    second = archives.exported(other, tmp_path / "second", form)
    assert second.manifest.meters == first.manifest.meters

    def events(path: Path) -> list[tuple[object, ...]]:
        read = [one for portion in records.reading(path) for one in portion]
        return sorted((*one[:5], one.properties) for one in read)

    assert events(second.path) == events(first.path)


def test_the_manifest_says_rows_and_sums_as_decimal_text(
    database: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    manifest = archives.exported(database, tmp_path).manifest
    assert (manifest.month, manifest.rows, manifest.schema) == ("2024-11", 6, 1)
    assert manifest.meters["questions"] == records.MeterSum(5, "123456792.100000001")
    assert manifest.meters["images"] == records.MeterSum(1, "2")


def test_corrections_change_the_sums_and_not_the_events(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    archives.corrected(database, "acme")
    done = archives.exported(database, tmp_path)
    assert done.manifest.meters["questions"] == records.MeterSum(4, "4.6")
    read = {one.id: one for portion in records.reading(done.path) for one in portion}
    assert read["-2"].counts_as == "void"
    assert '"123456789.000000001"' in read["-2"].properties
    assert read["nl"].counts_as == '{"quantity": "2.5"}'


@pytest.mark.parametrize("form", ["csv", "csv.gz"])
def test_the_same_events_are_the_same_bytes(database: Database, tmp_path: Path, form: str) -> None:
    archives.filled(database)
    one = archives.exported(database, tmp_path / "one", form).path.read_bytes()
    assert one == archives.exported(database, tmp_path / "two", form).path.read_bytes()


def test_no_cell_of_a_csv_is_a_formula(database: Database, tmp_path: Path) -> None:
    archives.filled(database)
    text = archives.exported(database, tmp_path).path.read_text(encoding="utf-8")
    cells = [cell for line in text.splitlines() for cell in line.replace('"', "").split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "-", "@"))]
    assert "'=1+1" in text


def test_an_archive_is_for_its_owner_only(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    done = archives.exported(database, tmp_path)
    for path in (done.path, records.manifest_path(done.path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_month_without_events_is_an_archive_too(database: Database, tmp_path: Path) -> None:
    archives.bare(database)
    for form in FORMS:
        done = archives.exported(database, tmp_path, form)
        assert (done.manifest.rows, done.manifest.meters) == (0, {})
        assert archives.imported(database, done.path).accepted == 0


def test_an_older_export_is_not_overwritten_unasked(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    done = archives.exported(database, tmp_path)
    with pytest.raises(Conflict) as refused:
        archives.exported(database, tmp_path)
    assert refused.value.code == "file_exists"
    archive.export(
        database, NOVEMBER, folder=tmp_path, form="csv", now=NOW, is_replacing=True,
        progress=nothing,
    )  # fmt: skip
    assert records.read_manifest(done.path) == done.manifest


def test_a_failed_export_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.export(database, NOVEMBER, folder=tmp_path, form="csv", now=NOW, progress=stop)
    assert list(tmp_path.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drop_manifest(path: Path) -> None:
    records.manifest_path(path).unlink()


def break_manifest(path: Path) -> None:
    records.manifest_path(path).write_text("{}", encoding="utf-8")


def vouch(path: Path, **changes: object) -> None:
    """Write a manifest that has the file's own hash, as whoever tampers with both would."""
    found = records.read_manifest(path)
    values = {name: getattr(found, name) for name in found.__struct_fields__}
    values |= {"sha256": records.digest(path), "bytes": path.stat().st_size} | changes
    part = records.part_in(path.parent, "csv")
    part.write_bytes(path.read_bytes())
    records.publish(part, path, records.Manifest(**values))


def cut_and_vouch(path: Path) -> None:
    cut(path)
    vouch(path)


def fewer_rows(path: Path) -> None:
    vouch(path, rows=3)


def next_schema(path: Path) -> None:
    vouch(path, schema=2)


def other_month(path: Path) -> None:
    vouch(path, month="2024-10")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (cut, "manifest_mismatch"),
        (flip, "manifest_mismatch"),
        (drop_manifest, "no_manifest"),
        (break_manifest, "bad_manifest"),
        (cut_and_vouch, "broken_file"),
        (fewer_rows, "manifest_mismatch"),
        (next_schema, "bad_manifest"),
        (other_month, "manifest_mismatch"),
    ],
)
def test_a_file_that_is_not_whole_counts_nothing(
    database: Database, tmp_path: Path, damage: Callable[[Path], None], code: str
) -> None:
    archives.filled(database, keys=("acme",))
    paths = [archives.exported(database, tmp_path, form).path for form in FORMS]
    with database.transaction() as tx:
        tx.raw.execute(b"DELETE FROM usage_event")
    for path in paths:
        damage(path)
        with pytest.raises(Invalid) as refused:
            archives.imported(database, path)
        assert refused.value.code == code
        assert refused.value.field == path.name
    assert usage.stored(database) == 0


def test_an_amount_changed_with_its_manifest_is_found_by_the_sums(
    database: Database, other: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    path = archives.exported(database, tmp_path).path
    path.write_text(path.read_text(encoding="utf-8").replace('""0.1""', '""9.1""'))
    vouch(path)
    archives.bare(other)
    with pytest.raises(Conflict) as refused:
        archives.imported(other, path)
    assert refused.value.code == "other_catalog"
    assert "'questions'" in refused.value.detail
    assert usage.stored(other) == 0


def test_a_meter_that_is_newer_than_the_archive_is_no_reason_to_refuse_it(
    database: Database, other: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    done = archives.exported(database, tmp_path)
    older = {key: one for key, one in done.manifest.meters.items() if key != "images"}
    vouch(done.path, meters=older)
    archives.bare(other)
    assert archives.imported(other, done.path).accepted == 6


def test_what_is_not_here_is_named_before_anything_is_counted(
    database: Database, other: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme", "zeta"))
    path = archives.exported(database, tmp_path).path
    archives.bare(other, keys=("acme",))
    with pytest.raises(Conflict, match="no customer 'zeta'"):
        archives.imported(other, path)
    assert usage.stored(other) == 0


def test_an_import_that_stops_says_what_stays_and_goes_on_later(
    database: Database, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = archives.filled(database)
    path = archives.exported(database, tmp_path).path
    there = archives.bare(other)
    monkeypatch.setattr(records, "_BATCH", 5)
    checked, tally = archive.check(other, path, progress=nothing), Tally()
    seen: list[int] = []

    def fail_third(steps: int) -> None:
        seen.append(steps)
        if len(seen) == 3:
            raise Unavailable("gone")

    with pytest.raises(Unavailable):
        archive.bring_in(Ingestor(other), checked, now=NOW, tally=tally, progress=fail_third)
    assert tally.accepted == usage.stored(other) == 15
    again = archives.imported(other, path)
    assert (again.accepted, again.duplicate) == (ROWS - 15, 15)
    archives.imported(other, archives.exported(database, tmp_path, "csv", DECEMBER).path)
    assert totals(other, there) == totals(database, ids)


def test_an_event_that_is_there_with_another_payload_is_refused_and_counted_as_such(
    database: Database, other: Database, tmp_path: Path
) -> None:
    archives.filled(database, keys=("acme",))
    path = archives.exported(database, tmp_path).path
    archives.bare(other)
    changed = event("none", time=archives.at(5), data={"quantity": 9})
    usage.send(Ingestor(other), changed, now=NOW, importing=True)
    tally = archives.imported(other, path)
    assert (tally.accepted, tally.refused) == (5, 1)
    assert usage.differences(other) == []


def test_without_the_extra_the_error_names_it_and_csv_works(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.filled(database, keys=("acme",))
    path = archives.exported(database, tmp_path, "parquet").path
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for attempt in (
        lambda: archives.exported(database, tmp_path / "more", "parquet"),
        lambda: archives.imported(database, path),
    ):
        with pytest.raises(Invalid, match=r"convergio-billing\[parquet\]") as refused:
            attempt()
        assert refused.value.code == "missing_extra"
    assert archives.exported(database, tmp_path, "csv").manifest.rows == 6


@pytest.mark.parametrize(
    "text", ["2024-13", "2024-1", "24-11", "2024-11-01", "", "1969-12", "٢٠٢٤-11"]
)
def test_a_month_is_a_year_and_a_month(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        archive.month(text)
    assert refused.value.field == "--month"


def test_a_line_without_an_end_does_not_fill_the_memory(database: Database, tmp_path: Path) -> None:
    archives.filled(database, keys=("acme",))
    path = archives.exported(database, tmp_path, "csv.gz").path
    with gzip.open(path, "ab") as file:
        file.write(b"x" * 3_000_000)
    vouch(path)
    with pytest.raises(Invalid, match="too long"):
        archives.imported(database, path)
