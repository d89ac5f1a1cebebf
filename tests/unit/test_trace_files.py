"""Trace files: every layout gives its rows, and what is broken is told by line."""

import gzip
from pathlib import Path

import pytest

from convergio.kernel.errors import Invalid
from convergio.simulation import traces
from convergio.simulation.traces import Row, Shape

CSV = Shape("csv", header=True)


def written(folder: Path, content: str | bytes, *, packed: bool = False) -> Path:
    path = folder / "trace"
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


def rows(path: Path, shape: Shape = CSV) -> list[Row]:
    return list(traces.read_rows(path, shape)[1])


@pytest.mark.parametrize("packed", [False, True])
def test_gzip_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, "a,b\r\n1,2\r\n3,4", packed=packed)
    assert traces.count_lines(path) == 3
    columns, found = traces.read_rows(path, CSV)
    assert columns == ("a", "b")
    assert [(one.line, one.number, one.fields, one.raw) for one in found] == [
        (2, 1, ["1", "2"], "1,2"),
        (3, 2, ["3", "4"], "3,4"),
    ]


def test_a_byte_order_mark_and_blank_lines_are_not_data(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa,b\n\n1,2\n\n \n3,4\n\n")
    columns, found = traces.read_rows(path, CSV)
    assert columns == ("a", "b")
    assert [(one.line, one.number) for one in found] == [(3, 1), (6, 2)]


def test_a_quoted_field_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b\n"1,""x""\ny",2\n3,4\n')
    first, second = rows(path)
    assert (first.line, first.fields) == (2, ['1,"x"\ny', "2"])
    assert first.raw == '"1,""x""\ny",2'
    assert (second.line, second.number, second.fields) == (4, 2, ["3", "4"])


@pytest.mark.parametrize("lines_after", [3, 500])
def test_a_quote_that_is_never_closed_costs_its_own_line_only(
    tmp_path: Path, lines_after: int
) -> None:
    good = "".join(f"{n},x\n" for n in range(lines_after))
    found = rows(written(tmp_path, f'a,b\n"1,2\n{good}'))
    assert len(found) == 1 + lines_after
    assert found[0].problem is not None
    assert found[0].raw == '"1,2'
    assert [one.fields for one in found[1:]] == [[str(n), "x"] for n in range(lines_after)]
    assert [one.line for one in found] == list(range(2, 3 + lines_after))


def test_a_row_of_another_width_is_a_problem_of_that_row(tmp_path: Path) -> None:
    short, long, good = rows(written(tmp_path, "a,b\n1\n1,2,3\n1,2\n"))
    assert short.problem == "the row has 1 fields where there are 2 columns"
    assert long.problem == "the row has 3 fields where there are 2 columns"
    assert good.problem is None


def test_tabs_spaces_and_named_columns_are_read_as_well(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a\tb\n1 x\t2\n"), Shape("tsv", header=True))[0].fields == [
        "1 x",
        "2",
    ]
    spaced = rows(written(tmp_path, " 1  2\n3 4\n"), Shape("ssv", columns=("a", "b")))
    assert [(one.line, one.fields) for one in spaced] == [(1, ["1", "2"]), (2, ["3", "4"])]


def test_json_lines_keep_every_digit(tmp_path: Path) -> None:
    path = written(
        tmp_path, '{"a": 0.1000000000000000000001, "b": 12345678901234567890}\n[1]\n{"a"'
    )
    good, array, cut = rows(path, Shape("jsonl"))
    assert isinstance(good.fields, dict)
    assert str(good.fields["a"]) == "0.1000000000000000000001"
    assert good.fields["b"] == 12345678901234567890
    assert array.problem == cut.problem == "the line is not one well-formed JSON object"


@pytest.mark.parametrize(
    "line", ['{"a": "\\ud800"}', '{"a": NaN}', "[" * 100_000, '{"a": ' + "9" * 5_000 + "}"]
)
def test_hostile_json_is_a_problem_of_its_line(tmp_path: Path, line: str) -> None:
    bad, good = rows(written(tmp_path, f'{line}\n{{"a": 1}}\n'), Shape("jsonl"))
    assert bad.problem is not None
    assert good.problem is None


def test_a_pattern_takes_a_line_apart(tmp_path: Path) -> None:
    shape = Shape("pattern", pattern=r"(?P<who>\S+) .* \[(?P<when>[^]]+)\].*")
    columns, found = traces.read_rows(written(tmp_path, "ada - [noon] x\nnothing\n"), shape)
    good, bad = found
    assert columns == ("who", "when")
    assert good.fields == ("ada", "noon")
    assert bad.problem == "the line does not match source.pattern"


def told(path: Path) -> str:
    with pytest.raises(Invalid) as caught:
        traces.count_lines(path)
    return str(caught.value)


def test_a_truncated_or_corrupt_gzip_is_refused_by_name(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 50_000)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    bad_sum = bytearray(whole)
    bad_sum[-6] ^= 0xFF
    for broken in (
        whole[:-9],
        whole[: len(whole) // 2],
        bytes(spoilt),
        bytes(bad_sum),
        b"\x1f\x8b",
    ):
        path = written(tmp_path, broken)
        assert "its gzip data is broken after line" in told(path)
        with pytest.raises(Invalid):
            list(traces.read_rows(path, CSV)[1])


def test_text_that_is_not_utf8_is_refused_by_line(tmp_path: Path) -> None:
    path = written(tmp_path, b"a,b\n1,2\ncaf\xe9,2\n3,4\n", packed=True)
    assert "line 3 is not UTF-8" in told(path)
    with pytest.raises(Invalid, match="line 3 is not UTF-8"):
        rows(path)
    assert "line 2 is not UTF-8" in told(written(tmp_path, b"a\n\xe2\x82"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "there is no such file" in told(tmp_path / "nothing")
    assert "it is not a regular file" in told(tmp_path)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, b"a,b\n" + b"0" * (40 * 1024 * 1024), packed=True)
    with pytest.raises(Invalid, match="line 2 is over"):
        rows(path)


@pytest.mark.parametrize(("content", "why"), [("", "empty"), ("a,a\n1,2\n", "named twice")])
def test_a_header_must_name_each_column_once(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        rows(written(tmp_path, content))
