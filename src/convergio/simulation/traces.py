"""Read a trace file row by row with flat memory: CSV, TSV, spaces, JSON lines or any pattern.

A row that cannot be read is a row with a `problem`, and the next one is read; a file that cannot
be read at all (broken gzip, not UTF-8, a column twice) raises with the line and the mend. gzip is
recognised by its first bytes, never by its name.
"""

import codecs
import csv
import gzip
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import msgspec

from convergio.kernel.errors import Invalid

LINE_SIZE_MAX: Final = 1024 * 1024
RECORD_LINES_MAX: Final = 100
_GZIP: Final = b"\x1f\x8b"
_MARK: Final = "\ufeff"
_CHUNK: Final = 1024 * 1024
_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
_object: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

Fields = Sequence[str | None] | Mapping[str, Any]
Line = tuple[int, str]


class Row(msgspec.Struct, frozen=True, gc=False):
    """A data row: its first line in the file, its number from 1, and its fields or its problem."""

    line: int
    number: int
    raw: str
    fields: Fields
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file is laid out. `columns` are its names where no first line gives them."""

    format: str
    header: bool = False
    columns: tuple[str, ...] = ()
    pattern: str | None = None

    @property
    def named(self) -> bool:
        """Whether a row brings its own names, as JSON does, instead of places."""
        return self.format == "jsonl"


def count_lines(path: Path) -> int:
    """Read the whole file once and return its lines, so that a broken one is refused at once.

    Raises: Invalid for broken gzip, text that is not UTF-8, and anything but a regular file.
    """
    if not path.is_file():
        detail = "there is no such file" if not path.exists() else "it is not a regular file"
        raise Invalid(f"{detail}; check the name", code="no_file", field=str(path))
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, last = 0, b"\n"
    with _opened(path, lambda: lines) as file:
        while chunk := file.read1(_CHUNK):
            _check_text(decoder, chunk, path, line=lines + 1)
            lines += chunk.count(b"\n")
            last = chunk
        _check_text(decoder, b"", path, line=lines + 1)
    return lines + (not last.endswith(b"\n"))


def read_rows(path: Path, shape: Shape) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns and an iterator over the rows, which holds one row in memory.

    Raises: Invalid naming the file or the line, now or later.
    """
    lines = _lines(path)
    if shape.format == "jsonl":
        return (), _numbered(lines, _json_fields)
    if shape.format == "pattern":
        wanted = re.compile(shape.pattern or "")
        columns = tuple(sorted(wanted.groupindex, key=lambda name: wanted.groupindex[name]))
        return columns, _numbered(lines, _pattern_fields(wanted, columns))
    records = _split(lines) if shape.format == "ssv" else _records(lines, shape.format)
    columns = _header(records, path) if shape.header else shape.columns
    return columns, _rows(records, len(columns))


@contextmanager
def _opened(path: Path, lines_read: Callable[[], int]) -> Iterator[BufferedReader]:
    """Open a file, unpacking gzip. Raises: Invalid naming the line at which it breaks."""
    with path.open("rb") as plain:
        packed = plain.read(len(_GZIP)) == _GZIP
        plain.seek(0)
        try:
            yield BufferedReader(gzip.GzipFile(fileobj=plain)) if packed else plain
        except (EOFError, zlib.error, gzip.BadGzipFile):
            detail = f"its gzip data is broken after line {lines_read()}; fetch or pack it again"
            raise Invalid(detail, code="broken_gzip", field=str(path)) from None


def _check_text(decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, *, line: int) -> None:
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        before = line + chunk.count(b"\n", 0, max(0, error.start - held))
        raise _not_text(path, before) from None


def _not_text(path: Path, line: int) -> Invalid:
    detail = f"line {line} is not UTF-8; convert the file, for example with iconv -t UTF-8"
    return Invalid(detail, code="not_utf8", field=str(path))


def _lines(path: Path) -> Iterator[Line]:
    """Yield each line that is not blank, with its number."""
    number = 0
    with _opened(path, lambda: number) as file:
        while raw := file.readline(LINE_SIZE_MAX + 1):
            number += 1
            if len(raw) > LINE_SIZE_MAX:
                detail = f"line {number} is over {LINE_SIZE_MAX} bytes; is this a text file?"
                raise Invalid(detail, code="line_too_long", field=str(path))
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                raise _not_text(path, number) from None
            text = text.removeprefix(_MARK) if number == 1 else text
            if text.strip():
                yield number, text


def _numbered(
    lines: Iterator[Line], read: Callable[[str], tuple[Fields, str | None]]
) -> Iterator[Row]:
    """Yield a row for each line."""
    for number, (line, text) in enumerate(lines, 1):
        raw = text.rstrip("\r\n")
        fields, problem = read(raw)
        yield Row(line, number, raw, fields, problem)


def _json_fields(text: str) -> tuple[Fields, str | None]:
    try:
        return _object.decode(text), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}, "the line is not one well-formed JSON object"


def _pattern_fields(
    wanted: re.Pattern[str], columns: tuple[str, ...]
) -> Callable[[str], tuple[Fields, str | None]]:
    def read(text: str) -> tuple[Fields, str | None]:
        found = wanted.fullmatch(text)
        if found is None:
            return (), "the line does not match source.pattern"
        return found.group(*columns) if len(columns) > 1 else (found[columns[0]],), None

    return read


class _Record(msgspec.Struct, frozen=True, gc=False):
    line: int
    raw: str
    fields: list[str]
    problem: str | None = None


def _split(lines: Iterator[Line]) -> Iterator[_Record]:
    for line, text in lines:
        yield _Record(line, text.rstrip("\r\n"), text.split())


class _Feed:
    """Lines for `csv.reader`, a limited number a record; lines can be given back.

    Without the limit one quote that is never closed would swallow all that follows it.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= RECORD_LINES_MAX:
            detail = f"a quoted field runs over {RECORD_LINES_MAX} lines; close its quote"
            raise csv.Error(detail)
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line[1]

    def keep_first(self) -> None:
        """Give all lines but the first one back."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _records(lines: Iterator[Line], format_: str) -> Iterator[_Record]:
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=_DELIMITERS[format_], strict=True)
    while True:
        fields, problem = [], None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"the quoting is broken: {error}"
            feed.keep_first()
        raw = "".join(text for _, text in feed.taken).rstrip("\r\n")
        yield _Record(feed.taken[0][0], raw, fields, problem)
        feed.taken.clear()


def _header(records: Iterator[_Record], path: Path) -> tuple[str, ...]:
    first = next(records, None)
    if first is None:
        detail = "the file is empty; the first line must name the columns"
        raise Invalid(detail, code="empty_file", field=str(path))
    twice = next((name for name in first.fields if first.fields.count(name) > 1), None)
    if first.problem or twice is not None:
        why = first.problem or f"the column '{twice}' is named twice"
        raise Invalid(f"line {first.line}: {why}; mend it", code="bad_header", field=str(path))
    return tuple(first.fields)


def _rows(records: Iterator[_Record], width: int) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        problem, found = record.problem, len(record.fields)
        if problem is None and found != width:
            problem = f"the row has {found} fields where there are {width} columns"
        yield Row(record.line, number, record.raw, record.fields, problem)
