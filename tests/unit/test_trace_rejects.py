"""The reject file: made for the first bad row, safe in a spreadsheet, its owner's alone."""

import csv
import stat
from pathlib import Path

import pytest

from convergio.kernel.text import safe_cell
from convergio.simulation.rejects import COLUMNS, Rejects
from convergio.simulation.traces import Row


def test_no_file_is_made_when_every_row_counts(tmp_path: Path) -> None:
    with Rejects(tmp_path / "out.csv", print) as rejects:
        pass
    assert not rejects.path.exists()


def test_every_row_is_kept_and_the_first_ten_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    with Rejects(tmp_path / "out.csv", said.append) as rejects:
        for number in range(1, 31):
            row = Row(number + 1, number, f'a,"{number}"', ())
            rejects.add(row, reason="bad_time", field="event.time", detail="the reason, in words")
    assert (rejects.count, rejects.reasons) == (30, {"bad_time"})
    assert said[0] == "line 2: bad_time event.time: the reason, in words"
    assert len(said) == 11
    with rejects.path.open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == list(COLUMNS)
    assert found[30] == ["31", "bad_time", "event.time", "the reason, in words", 'a,"30"']
    assert stat.S_IMODE(rejects.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_reads_as_a_formula(start: str) -> None:
    assert safe_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"
    assert safe_cell(f"a{start}") == f"a{start}"
