"""The mapping file: rows become exact events, and every mistake is told by the name of its key."""

from pathlib import Path

import pytest

from convergio.kernel.errors import Invalid
from convergio.metering.model import Event
from convergio.simulation import mapping as mappings
from convergio.simulation import traces
from convergio.simulation.mapping import Unmappable
from tests.arch import house

SOURCE = '[source]\nname = "urn:test"\nformat = "csv"\n'
EVENT = """
[event]
type = "ai.request"
time = {column = "at", format = "unix"}
customer = {column = "who"}
"""
DATA = """
[data.status]
column = "state"
map = {SUCCEED = "succeeded", FAILED = "failed"}

[data.images]
column = "n"
number = true
"""
WHOLE = SOURCE + EVENT + DATA


def loaded(folder: Path, text: str | bytes) -> mappings.MappingFile:
    path = folder / "mapping.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return mappings.load(path)


def mapped(folder: Path, text: str, content: str) -> list[Event | str]:
    """Return each row's event, or `reason field` of a row that has none."""
    found = loaded(folder, text)
    trace = folder / "trace"
    trace.write_text(content, encoding="utf-8")
    columns, rows = traces.read_rows(trace, found.shape)
    to_event = mappings.bind(found, columns)
    made: list[Event | str] = []
    for row in rows:
        try:
            made.append(to_event(row))
        except Unmappable as why:
            made.append(f"{why.reason} {why.field}".strip())
    return made


def data(one: Event | str) -> dict[str, str]:
    assert isinstance(one, Event)
    return one.data or {}


def test_a_row_becomes_an_event_named_after_its_place(tmp_path: Path) -> None:
    first, second = mapped(
        tmp_path, WHOLE, "at,who,state,n\n1082040961,ada,SUCCEED,4.0\n1,bob,FAILED,\n"
    )
    assert isinstance(first, Event)
    assert (first.id, first.source, first.type, first.subject) == (
        "row-1",
        "urn:test",
        "ai.request",
        "ada",
    )
    assert first.time is not None
    assert first.time.isoformat() == "2004-04-15T14:56:01+00:00"
    assert first.data == {"status": "succeeded", "images": "4"}
    assert isinstance(second, Event)
    assert (second.id, second.data) == ("row-2", {"status": "failed"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32.0", "32"),
        ("0", "0"),
        ("007", "7"),
        ("-0.0", "0"),
        ("+1.50", "1.5"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        (".5", "0.5"),
        ("0.1", "0.1"),
        ("99999999999999999999.123456789", "99999999999999999999.123456789"),
        ("-3", "-3"),
    ],
)
def test_numbers_keep_their_exact_value(tmp_path: Path, text: str, expected: str) -> None:
    (one,) = mapped(tmp_path, WHOLE, f"at,who,state,n\n1,ada,SUCCEED,{text}\n")
    assert data(one)["images"] == expected


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1 000", "0x10", "٣", "1_000", "9" * 41])
def test_what_is_not_a_plain_number_is_refused(tmp_path: Path, text: str) -> None:
    assert mapped(tmp_path, WHOLE, f"at,who,state,n\n1,ada,SUCCEED,{text}\n") == [
        "not_a_number data.images"
    ]


def test_each_wrong_row_is_told_apart_and_the_others_go_in(tmp_path: Path) -> None:
    content = (
        "at,who,state,n\n"
        "1,ada,CANCELED,1\n"  # a status that nobody mapped must not count as a success
        "noon,ada,SUCCEED,1\n"
        ",ada,SUCCEED,1\n"
        "1,,SUCCEED,1\n"
        "1, ada,SUCCEED,1\n"
        "1,cus_01j00000000000000000000000,SUCCEED,1\n"
        "1,ada,SUCCEED\n"
        "1,ada,SUCCEED,1\n"
    )
    *wrong, good = mapped(tmp_path, WHOLE, content)
    assert wrong == [
        "not_in_map data.status",
        "bad_time event.time",
        "no_time event.time",
        "bad_customer event.customer",
        "bad_customer event.customer",
        "bad_customer event.customer",
        "bad_row",
    ]
    assert isinstance(good, Event)
    assert good.id == "row-8"


def test_json_lines_map_by_name(tmp_path: Path) -> None:
    text = WHOLE.replace("csv", "jsonl") + '\n[data.model]\ncolumn = "m"\noptional = true\n'
    content = (
        '{"at": 1, "who": "ada", "state": "SUCCEED", "n": 1.10, "m": true}\n'
        '{"at": 1.5, "who": 7, "state": "FAILED", "n": null}\n'
        '{"at": 1, "who": "ada", "state": "SUCCEED"}\n'
        '{"at": 1, "who": ["ada"], "state": "SUCCEED", "n": 1}\n'
        '{"at": 1, "who": "ada", "state": "SUCCEED", "n": 1e99999999}\n'
        "nothing\n"
    )
    first, second, *wrong = mapped(tmp_path, text, content)
    assert data(first) == {"status": "succeeded", "images": "1.1", "model": "true"}
    assert isinstance(second, Event)
    assert (second.subject, second.data) == ("7", {"status": "failed"})
    assert wrong == [
        "missing_column data.images.column",
        "not_a_value event.customer.column",
        "not_a_number data.images",
        "bad_row",
    ]


def test_ids_constants_and_empty_values_come_as_the_file_says(tmp_path: Path) -> None:
    text = (
        SOURCE
        + EVENT.replace('{column = "who"}', '{constant = "acme"}\nid = {column = "id"}')
        + '[data.model]\nconstant = "small"\n[data.images]\ncolumn = "n"\nempty = ["-", "NA"]\n'
    )
    first, second, third = mapped(tmp_path, text, "at,id,n\n1,a-1,-\n1,a-2,\n1,,5\n")
    assert isinstance(first, Event)
    assert (first.id, first.subject, first.data) == ("a-1", "acme", {"model": "small"})
    assert data(second) == {"model": "small", "images": ""}
    assert third == "no_id event.id"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "urn:test"\n', "", "source"),
        ('name = "urn:test"', 'name = ""', "source.name"),
        ('name = "urn:test"', 'name = "a\\tb"', "source.name"),
        ('format = "csv"', 'format = "xlsx"', "source.format"),
        ('format = "csv"', 'format = "csv"\ndelimiter = ";"', "source"),
        ('format = "csv"', 'format = "csv"\nheader = false', "source.columns"),
        ('format = "csv"', 'format = "csv"\nheader = true\ncolumns = ["a"]', "source.columns"),
        ('format = "csv"', 'format = "csv"\ncolumns = ["a", "a"]', "source.columns"),
        ('format = "csv"', 'format = "csv"\npattern = "(?P<a>.)"', "source.pattern"),
        ('format = "csv"', 'format = "jsonl"\nheader = true', "source.header"),
        ('format = "csv"', 'format = "pattern"', "source.pattern"),
        ('format = "csv"', 'format = "pattern"\npattern = "(?P<a>"', "source.pattern"),
        ('format = "csv"', 'format = "pattern"\npattern = "a"', "source.pattern"),
        ('"unix"', '"yesterday"', "event.time.format"),
        ('"unix"', '"unix", zone = "Mars/Base"', "event.time.zone"),
        ('"unix"', '"unix", zon = "UTC"', "event.time"),
        ('"unix"', '"relative_ms"', "event.time.origin"),
        ('"unix"', '"unix", origin = 2024-07-01T00:00:00Z', "event.time.origin"),
        ('"unix"', '"relative_ms", origin = 2024-07-01T00:00:00', "event.time.origin"),
        ('{column = "who"}', "{}", "event.customer"),
        ('{column = "who"}', '{column = "who", constant = "a"}', "event.customer"),
        ('{column = "who"}', '{constant = " a "}', "event.customer.constant"),
        ('{column = "who"}', '{column = "who"}\nid = "uuid"', "event.id"),
        ('column = "state"\n', "", "data.status"),
        ("number = true", 'number = "yes"', "data.images.number"),
        ("number = true", "number = true\nnumbr = true", "data.images"),
        ("number = true", "default = 1.5", "data.images"),
    ],
)
def test_a_wrong_mapping_is_told_by_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in WHOLE
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, WHOLE.replace(old, new, 1))
    assert caught.value.field is not None
    assert caught.value.field.replace("[...]", "images").startswith(key.split(".", maxsplit=1)[0])
    shown = f"{caught.value}"
    assert key in shown.replace("data[...]", "data.images")
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    "raw", [b"[source\n", b"a = \xff", b"x = 1\nx = 2", b"[source]\n" + b"#" * 2_000_000]
)
def test_a_file_that_is_not_a_mapping_is_told_by_its_name(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, raw)
    assert caught.value.field is not None
    assert "mapping.toml" in caught.value.field
    with pytest.raises(Invalid, match="No such file"):
        mappings.load(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("when,who,state,n\n", "event.time.column"),
        ("at,whom,state,n\n", "event.customer.column"),
        ("at,who,state,m\n", "data.images.column"),
    ],
)
def test_a_column_that_the_file_lacks_is_told_before_the_first_row(
    tmp_path: Path, content: str, key: str
) -> None:
    with pytest.raises(Invalid) as caught:
        mapped(tmp_path, WHOLE, content + "1,2,3,4\n")
    assert (caught.value.field, caught.value.code) == (key, "missing_column")


@pytest.mark.parametrize(
    "path", sorted((house.ROOT / "docs" / "howto").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_mapping_that_we_ship_is_valid(path: Path) -> None:
    assert mappings.load(path).event.type == "ai.request"
