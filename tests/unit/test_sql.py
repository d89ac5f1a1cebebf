"""The loader of named queries: what Postgres gets is what the file says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.infra import sql
from convergio.kernel.errors import Fault

FILE = """-- name: find_thing
-- Find it.
SELECT thing_id FROM thing WHERE thing_id = :thing_id AND name LIKE 'a%%';

-- name: save_thing!
-- Save it.
UPDATE thing SET at = :at::timestamptz WHERE thing_id = :thing_id;
"""


def test_a_file_becomes_queries_by_name(tmp_path: Path) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(FILE)
    queries = sql.load(path)
    assert set(queries) == {"find_thing", "save_thing"}
    assert "%(thing_id)s" in queries["find_thing"]
    assert "a%%" in queries["find_thing"]


def test_prepared_numbers_each_name_once_and_undoubles_percent_signs() -> None:
    text, names = sql.prepared("SELECT %(a)s, %(b)s, %(a)s WHERE x LIKE 'z%%'")
    assert text == "SELECT $1, $2, $1 WHERE x LIKE 'z%'"
    assert names == ["a", "b"]


def test_prepared_numbers_nameless_places_apart() -> None:
    text, names = sql.prepared("VALUES (%s::uuid, %s::text)")
    assert text == "VALUES ($1::uuid, $2::text)"
    assert names == ["#0", "#1"]


def test_repeated_writes_a_row_of_places_for_each_row() -> None:
    query = "INSERT INTO t AS x (a, b) VALUES (%s::uuid, %s::text) ON CONFLICT (a) DO NOTHING"
    assert sql.repeated(query, 3) == (
        "INSERT INTO t AS x (a, b) VALUES ($1::uuid, $2::text), ($3::uuid, $4::text), "
        "($5::uuid, $6::text) ON CONFLICT (a) DO NOTHING"
    )


def test_repeated_keeps_percent_signs_of_the_query() -> None:
    assert sql.repeated("SELECT 'a%%' FROM (VALUES (%s::int)) v", 1) == (
        "SELECT 'a%' FROM (VALUES ($1::int)) v"
    )


def test_repeated_asks_for_a_row_of_places() -> None:
    with pytest.raises(Fault):
        sql.repeated("SELECT 1", 2)


@given(st.integers(0, 20_000))
def test_portions_cover_every_row_once_in_few_sizes(size: int) -> None:
    found = list(sql.portions(size))
    assert [place for start, end in found for place in range(start, end)] == list(range(size))
    sizes = [end - start for start, end in found]
    assert set(sizes) <= {1, 2, 3, 4, 8, 16, 32, 64, 256}
    assert len(sizes) <= size // 256 + 8
