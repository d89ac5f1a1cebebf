"""The rows that did not count: the first few told at once, all of them kept in a file.

The file is CSV for a spreadsheet: a cell that one would read as a formula gets an apostrophe in
front. It holds rows of the trace, which may be personal, so only its owner can read it.
"""

import csv
import os
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Final, Self

from convergio.kernel.text import safe_cell
from convergio.simulation.traces import Row

COLUMNS: Final = ("line", "reason", "field", "detail", "row")
_TOLD_MAX: Final = 10


class Rejects:
    """Collect rejected rows; the file is made when there is a first one."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Write to `path`, and tell the first few with `say`."""
        self.path = path
        self.count = 0
        self.reasons: set[str] = set()
        self._say = say
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def add(self, row: Row, *, reason: str, field: str, detail: str) -> None:
        """Keep one row with the reason. Raises: OSError when the file cannot be written."""
        if self._file is None:
            self._file = self._opened()
            csv.writer(self._file).writerow(COLUMNS)
        cells = (str(row.line), reason, field, detail, row.raw)
        csv.writer(self._file).writerow([safe_cell(cell) for cell in cells])
        self.count += 1
        self.reasons.add(reason)
        if self.count <= _TOLD_MAX:
            where = f" {field}" if field else ""
            self._say(f"line {row.line}: {reason}{where}: {detail}")
        elif self.count == _TOLD_MAX + 1:
            self._say(f"... more rows are only written to {self.path}")

    def _opened(self) -> TextIOWrapper:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.fdopen(handle, "w", encoding="utf-8", newline="")
