"""Archive files: what is written is what is read, in each form, and cells are no formulas."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.errors import Invalid
from convergio.kernel.text import bare_cell, safe_cell
from convergio.metering import archive, records
from convergio.metering.records import Manifest, MeterSum, Record

AT = datetime(2024, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
FORMS = ("csv", "csv.gz", "parquet")


def record(**changes: object) -> Record:
    """Return an event as a file holds it."""
    values: dict[str, object] = dict(zip(Record._fields, ("acme", "s", "1", "t"), strict=False))
    values |= {"occurred_at": AT, "received_at": AT, "properties": "{}", "counts_as": ""}
    return Record(**{**values, **changes})  # type: ignore[arg-type] # each by its own name


def written(path: Path, *portions: list[Record]) -> list[Record]:
    with records.writing(path) as write:
        for portion in portions:
            write(portion)
    return [one for portion in records.reading(path) for one in portion]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_what_is_read(tmp_path: Path, form: str) -> None:
    rows = [
        record(),
        record(customer="=1+1", source="'", id="''=", type="-"),
        record(id='a,"b"\r\n;\tc', properties='{"x": "\\n\\"", "n": 0.10000}'),
        record(id="\u2603\U0001f600", occurred_at=AT.replace(microsecond=0)),
        record(counts_as="void"),
    ]
    assert written(tmp_path / f"a.{form}", rows[:2], [], rows[2:]) == rows


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_a_safe_cell_reads_back_and_is_no_formula(text: str) -> None:
    cell = safe_cell(text)
    assert bare_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@pytest.mark.parametrize("form", FORMS)
def test_many_rows_come_in_portions(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    rows = [record(id=str(number)) for number in range(12_001)]
    assert written(path, rows[:7000], rows[7000:]) == rows
    assert max(len(portion) for portion in records.reading(path)) <= 5_000


def test_an_instant_without_a_zone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    written(path, [record()])
    path.write_text(path.read_text(encoding="utf-8").replace("Z", ""), encoding="utf-8")
    with pytest.raises(Invalid) as refused:
        list(records.reading(path))
    assert refused.value.code == "broken_file"


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"\xff\xfe", b"PAR1", "customer,source\n".encode("utf-16")]
)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_archive_is_refused_in_one_line(
    tmp_path: Path, form: str, content: bytes
) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(content)
    with pytest.raises(Invalid) as refused:
        list(records.reading(path))
    assert refused.value.code == "broken_file"
    assert "\n" not in refused.value.detail


def test_a_name_says_the_form() -> None:
    assert records.form_of(Path("usage-2024-11.csv.gz")) == "csv.gz"
    for name in ("usage.txt", "csv", "usage.gz", ".parquet.bak"):
        with pytest.raises(Invalid):
            records.form_of(Path(name))


@pytest.mark.parametrize("form", ["xlsx", "", "CSV", "../csv"])
def test_only_known_forms_are_written(form: str) -> None:
    with pytest.raises(Invalid) as refused:
        records.check_form(form)
    assert refused.value.field == "--format"


def test_a_manifest_is_read_back_and_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    manifest = Manifest(1, "2024-11", "a.csv", 1, 3, "0" * 64, {"q": MeterSum(1, "0.5")}, "now")
    part = records.part_in(tmp_path, "csv")
    part.write_bytes(b"abc")
    records.publish(part, path, manifest)
    assert records.read_manifest(path) == manifest
    beside = records.manifest_path(path)
    beside.write_text(beside.read_text().replace('"rows"', '"more": 1, "rows"'), encoding="utf-8")
    with pytest.raises(Invalid) as refused:
        records.read_manifest(path)
    assert refused.value.code == "bad_manifest"


@pytest.mark.parametrize(
    ("moment", "months", "expected"),
    [
        ("2026-11-22", -18, "2025-05-01"),
        ("2026-06-01", -18, "2024-12-01"),
        ("2025-01-31", -1, "2024-12-01"),
        ("2024-12-31", 1, "2025-01-01"),
    ],
)
def test_months_are_counted_by_the_calendar(moment: str, months: int, expected: str) -> None:
    there = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert archive.first_of_month(there, months).date().isoformat() == expected


def test_a_month_is_half_open_in_utc() -> None:
    period = archive.month("2024-11")
    assert period.contains(AT)
    assert not period.contains(datetime(2024, 12, 1, tzinfo=UTC))
    assert archive.month_text(period) == "2024-11"
