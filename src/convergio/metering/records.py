"""Archive files: a month of events as CSV or Parquet, and the manifest that vouches for it.

Everything is exact text: times to the microsecond, properties as the JSON that is stored. In CSV a
cell that a spreadsheet would take for a formula has an apostrophe in front, which is taken off
again when the file is read. The manifest is written last: a file without one is not finished.
"""

import csv
import gzip
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from hashlib import file_digest
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import msgspec

from convergio.infra import extras
from convergio.kernel.errors import ConvergioError, Invalid
from convergio.kernel.periods import parse_instant
from convergio.kernel.text import bare_cell, safe_cell

SCHEMA: Final = 1
FORMS: Final = ("csv", "csv.gz", "parquet")
VOID: Final = "void"
_MANIFEST: Final = ".manifest.json"
_MANIFEST_BYTES_MAX: Final = 1_000_000
_LINE_SIZE_MAX: Final = 131_072
_BATCH: Final = 5_000
_ROW_GROUP: Final = 20_000
_LEVEL: Final = 6
_BROKEN: Final = (csv.Error, EOFError, OSError, ValueError, zlib.error)
Write = Callable[[Sequence["Record"]], None]


class Record(NamedTuple):
    """An event as a file holds it; `counts_as` is empty, `void` or the amended properties."""

    customer: str
    source: str
    id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    properties: str
    counts_as: str


class MeterSum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a meter selects of a file: how many events, and their values added up."""

    events: int
    quantity: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What vouches for a file."""

    schema: int
    month: str
    file: str
    rows: int
    bytes: int
    sha256: str
    meters: dict[str, MeterSum]
    exported_at: str


_manifest: Final = msgspec.json.Decoder(Manifest)


def form_of(path: Path) -> str:
    """Return the form that a file's name says. Raises: Invalid."""
    for form in FORMS:
        if path.name.endswith(f".{form}"):
            return form
    detail = f"{path.name} is not an archive; its name ends with .{', .'.join(FORMS)}"
    raise Invalid(detail, code="bad_format", field="FILE")


def check_form(form: str) -> str:
    """Return the form if it can be written here. Raises: Invalid naming the mend."""
    if form not in FORMS:
        raise Invalid(f"write one of {', '.join(FORMS)}", code="bad_format", field="--format")
    if form == "parquet":
        _parquet()
    return form


def manifest_path(path: Path) -> Path:
    """Return where a file's manifest is: beside it."""
    return path.with_name(path.name + _MANIFEST)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a file. Raises: Invalid when there is none that can be read."""
    beside = manifest_path(path)
    try:
        with beside.open("rb") as file:
            found = _manifest.decode(file.read(_MANIFEST_BYTES_MAX))
    except FileNotFoundError:
        detail = f"{beside.name} is not beside it; an export without its manifest is not whole"
        raise Invalid(detail, code="no_manifest", field=path.name) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        detail = f"{beside.name} is not a manifest of this product; export the month again"
        raise Invalid(detail, code="bad_manifest", field=path.name) from None
    if found.schema != SCHEMA:
        detail = f"it has schema {found.schema}, and this version reads {SCHEMA}; upgrade first"
        raise Invalid(detail, code="bad_manifest", field=path.name)
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_bytes(path: Path, manifest: Manifest) -> None:
    """Refuse a file that is not the one that the manifest was made for. Raises: Invalid."""
    if path.stat().st_size == manifest.bytes and digest(path) == manifest.sha256:
        return
    detail = "the file is not the one that its manifest vouches for (cut short or changed)"
    raise Invalid(f"{detail}; get the original", code="manifest_mismatch", field=path.name)


def part_in(folder: Path, form: str) -> Path:
    """Make an empty file of our own to write to. Raises: OSError when the folder takes none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=f".{form}", dir=folder)
    os.close(handle)
    return Path(name)


def publish(part: Path, path: Path, manifest: Manifest) -> None:
    """Give a finished file its name, then write its manifest; durable when it returns."""
    part.replace(path)
    beside = part_in(path.parent, "json")
    try:
        with beside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            _settle(file)
        beside.replace(manifest_path(path))
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _settle(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Write records to a file in the form that its name says; durable at the end of the block."""
    form = form_of(path)
    with path.open("wb") as file:
        kind = _writing_parquet(file) if form == "parquet" else _writing_csv(file, form)
        with kind as write:
            yield write
        _settle(file)


@contextmanager
def _writing_csv(file: IO[bytes], form: str) -> Iterator[Write]:
    packed = form == "csv.gz"  # no name and no time inside: equal events are equal bytes
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) if packed else nullcontext(file) as raw:
        text = TextIOWrapper(cast("IO[bytes]", raw), encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Record._fields)

        def write(records: Sequence[Record]) -> None:
            writer.writerows(
                (
                    safe_cell(one.customer), safe_cell(one.source), safe_cell(one.id),
                    safe_cell(one.type), _instant(one.occurred_at), _instant(one.received_at),
                    one.properties, one.counts_as,
                )
                for one in records
            )  # fmt: skip

        yield write
        text.flush()
        text.detach()


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@contextmanager
def _writing_parquet(file: IO[bytes]) -> Iterator[Write]:
    arrow, parquet = _parquet()
    schema = _schema(arrow)
    waiting: list[Record] = []
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = [
                arrow.array([row[place] for row in waiting], column.type)
                for place, column in enumerate(schema)
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            waiting.clear()

        def write(records: Sequence[Record]) -> None:
            waiting.extend(records)
            if len(waiting) >= _ROW_GROUP:
                flush()

        yield write
        if waiting:
            flush()


def _parquet() -> tuple[Any, Any]:
    """Return the two modules that read and write Parquet. Raises: Invalid naming the extra."""
    arrow, parquet = (
        extras.load(name, extra="parquet", field="--format", otherwise="use CSV, which needs none")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    return arrow, parquet


def _schema(arrow: Any) -> Any:  # noqa: ANN401 - a library that has no types
    moment = arrow.timestamp("us", tz="UTC")
    kinds = dict.fromkeys(Record._fields, arrow.string())
    kinds |= {"occurred_at": moment, "received_at": moment}
    return arrow.schema([arrow.field(name, kind, nullable=False) for name, kind in kinds.items()])


def reading(path: Path) -> Iterator[list[Record]]:
    """Yield a file's records in portions, with flat memory. Raises: Invalid where it breaks."""
    form, done = form_of(path), 0
    portions = _reading_parquet(path) if form == "parquet" else _reading_csv(path, form)
    try:
        for portion in portions:
            yield portion
            done += len(portion)
    except _BROKEN as error:
        why = "; ".join(str(error).splitlines())[:200]
        detail = f"it cannot be read after row {done} ({why}); get the original"
        raise Invalid(detail, code="broken_file", field=path.name) from None


def _reading_csv(path: Path, form: str) -> Iterator[list[Record]]:
    with gzip.open(path, "rb") if form == "csv.gz" else path.open("rb") as raw:
        text = TextIOWrapper(cast("IO[bytes]", raw), encoding="utf-8", newline="")
        rows = csv.reader(_lines(text), strict=True)
        if next(rows, None) != list(Record._fields):
            raise ValueError("the first line does not name the columns")
        portion: list[Record] = []
        for row in rows:
            portion.append(_record(row))
            if len(portion) == _BATCH:
                yield portion
                portion = []
        if portion:
            yield portion


def _lines(text: TextIOWrapper) -> Iterator[str]:
    """Yield lines, never a longer one than an event can be."""
    while line := text.readline(_LINE_SIZE_MAX):
        if len(line) == _LINE_SIZE_MAX:
            raise ValueError("a line is too long")
        yield line


def _record(row: list[str]) -> Record:
    if len(row) != len(Record._fields):
        raise ValueError(f"a row has {len(row)} cells")
    customer, source, event_id, kind, occurred_at, received_at, properties, counts_as = row
    try:
        return Record(
            bare_cell(customer), bare_cell(source), bare_cell(event_id), bare_cell(kind),
            parse_instant(occurred_at), parse_instant(received_at), properties, counts_as,
        )  # fmt: skip
    except ConvergioError as error:
        raise ValueError(error.detail) from None


def _reading_parquet(path: Path) -> Iterator[list[Record]]:
    arrow, parquet = _parquet()
    try:
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_schema(arrow)):
                raise ValueError("the columns are not those of an archive")
            for batch in file.iter_batches(batch_size=_BATCH):
                yield [
                    Record(*row)._replace(
                        occurred_at=row[4].astimezone(UTC), received_at=row[5].astimezone(UTC)
                    )
                    for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
                ]
    except arrow.ArrowException as error:
        raise ValueError(str(error)) from None
