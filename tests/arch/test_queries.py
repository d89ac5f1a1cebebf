"""Postgres reads every query before a customer does: each is prepared on the migrated schema.

That checks names and types of tables, columns and parameters. Beside it: a store function is its
query (same name), its row class has the columns that come back, and no query says what the data
rules forbid.
"""

import ast
import dataclasses
import importlib
import re
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from convergio.infra import sql
from convergio.infra.db import Tx
from tests.arch import house

FILES = sorted(house.SERVER.rglob("queries.sql"))
STORES = sorted(house.SERVER.rglob("store.py"))
COPY = re.compile(r"\s*(--[^\n]*\n\s*)*COPY\b", re.IGNORECASE)
BLOCK = re.compile(r"^-- name: *(\w+)[^\n]*\n(.*?)(?=^-- name:|\Z)", re.MULTILINE | re.DOTALL)

# A clock of the database's own, in a house where time is an input.
CLOCKS = (
    r"\b(now\s*\(|current_(timestamp|date|time)\b|(clock|statement|transaction)_timestamp\s*\()"
)
FORBIDDEN = {
    "IN (:list) matches nothing; write = ANY(:list::type[])": r"\bIN\s*\(\s*:",
    "columns are named, never *": r"(SELECT|,|\.)\s*\*|RETURNING\s+\*",
    "MERGE does not exist on a distributed table": r"\bMERGE\s+INTO\b",
    "time is a parameter": CLOCKS,
    "a month is not a fixed interval; pass the instant": r"[+-]\s*interval\s",
}
LOCKING = r"\bFOR\s+(NO\s+KEY\s+)?UPDATE\b|\bFOR\s+(KEY\s+)?SHARE\b"


def identity(path: Path) -> str:
    return house.shown(path)


def statement(query: str) -> str:
    """Return the query without comments and text literals."""
    return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", query, flags=re.DOTALL)


def described(tx: Tx, name: str, query: str) -> list[str]:
    """Prepare the query and return its columns. Raises: AssertionError with Postgres's words."""
    text, _ = sql.prepared(query)
    result = tx.raw.pgconn.prepare(name.encode(), text.encode())
    message = result.error_message.decode(errors="replace")
    assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, f"{name}: {message}"
    shape = tx.raw.pgconn.describe_prepared(name.encode())
    return [(shape.fname(place) or b"").decode() for place in range(shape.nfields)]


def test_the_house_has_queries_to_read() -> None:
    assert len(FILES) > 1


def test_postgres_understands_every_query(tx: Tx) -> None:
    wrong = []
    for path in FILES:
        for name, query in sql.load(path).items():
            try:
                with tx.savepoint():
                    if COPY.match(query):
                        tx.copy(query, [])
                    else:
                        described(tx, f"{path.parent.name}_{name}", query)
            except (AssertionError, psycopg.Error) as error:
                wrong.append(f"{identity(path)}: {name}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_every_query_says_what_it_is_for(path: Path) -> None:
    silent = [
        found[1]
        for found in BLOCK.finditer(path.read_text(encoding="utf-8"))
        if not found[2].lstrip().startswith("-- ")
    ]
    assert not silent


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_no_query_says_what_the_data_rules_forbid(path: Path) -> None:
    found = [
        f"{block[1]}: {rule}"
        for block in BLOCK.finditer(path.read_text(encoding="utf-8"))
        for rule, pattern in FORBIDDEN.items()
        if re.search(pattern, re.sub(r"\bcount\(\*\)", "", statement(block[2])), re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_a_query_that_locks_many_rows_locks_them_in_order(path: Path) -> None:
    unordered = [
        block[1]
        for block in BLOCK.finditer(path.read_text(encoding="utf-8"))
        if re.search(LOCKING, statement(block[2]), re.IGNORECASE)
        and re.search(r"=\s*ANY\s*\(", statement(block[2]), re.IGNORECASE)
        and not re.search(r"\bORDER\s+BY\b", statement(block[2]), re.IGNORECASE)
    ]
    assert not unordered


@pytest.mark.parametrize("path", STORES, ids=identity)
def test_a_store_has_one_function_a_query_of_the_same_name(path: Path) -> None:
    queries = set(sql.load(path.with_name("queries.sql")))
    functions = {
        node.name
        for node in house.tree(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert functions == queries


@pytest.mark.parametrize("path", STORES, ids=identity)
def test_a_store_function_runs_its_own_query(path: Path) -> None:
    strangers = [
        f"{node.name} does not use its query"
        for node in house.tree(path).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.name not in _queries_used(node)
    ]
    assert not strangers, "\n".join(strangers)


@pytest.mark.parametrize("path", STORES, ids=identity)
def test_a_row_class_has_exactly_the_columns_that_come_back(path: Path, tx: Tx) -> None:
    store = importlib.import_module(_module_name(path))
    queries = sql.load(path.with_name("queries.sql"))
    wrong = []
    for query, row in _rows_read(path):
        fields = _fields(store, row)
        columns = described(tx, query, queries[query])
        if fields and sorted(fields) != sorted(columns):
            wrong.append(f"{query}: columns {sorted(columns)}, {row} has {sorted(fields)}")
    assert not wrong, "\n".join(wrong)


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(house.SOURCE).with_suffix("").parts)


def _query_name(node: ast.expr) -> str | None:
    """Return x of `QUERIES["x"]`."""
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id.strip("_") == "QUERIES"
        and isinstance(node.slice, ast.Constant)
    ):
        return str(node.slice.value)
    return None


def _queries_used(function: ast.FunctionDef) -> set[str]:
    """Return every text in the function that may name a query: `QUERIES["x"]`, `_many(tx, "x")`."""
    body = [node for statement in function.body for node in ast.walk(statement)]
    return {n.value for n in body if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _rows_read(path: Path) -> list[tuple[str, str]]:
    """Return the query and the row class of each `tx.many(QUERIES[...], Row, ...)`."""
    return [
        (query, ast.unparse(node.args[1]))
        for node in ast.walk(house.tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"many", "one"}
        and len(node.args) > 1
        and (query := _query_name(node.args[0]))
    ]


def _fields(store: ModuleType, row: str) -> list[str]:
    found: object = store
    for part in row.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and dataclasses.is_dataclass(found):
        return [field.name for field in dataclasses.fields(found) if field.init]
    return list(getattr(found, "__struct_fields__", ()))
