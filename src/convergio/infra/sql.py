"""Named queries: SQL stays in `queries.sql`, and Python knows its name.

aiosql is the parser only. Parameters are `:name`, a percent sign is written twice, lists are
`= ANY(:names::text[])`. `tests/arch/test_queries.py` prepares every query on the migrated schema.
"""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, LiteralString, cast

import aiosql

from convergio.kernel.errors import require


def load(path: Path) -> Mapping[str, LiteralString]:
    """Read one `queries.sql` into name -> SQL with psycopg's placeholders."""
    queries = aiosql.from_path(path, "psycopg", encoding="utf-8", mandatory_parameters=False)
    names = [name for name in queries.available_queries if not name.endswith("_cursor")]
    return {name: cast("LiteralString", getattr(queries, name).sql) for name in names}


# aiosql warns of a statement that lacks its operator mark; this loader has no use for the marks
logging.getLogger("aiosql").setLevel(logging.ERROR)

_GROUP = re.compile(r"(?<=VALUES )(\([^()]*%s[^()]*\))")


@lru_cache(maxsize=1024)
def repeated(query: LiteralString, count: int) -> LiteralString:
    """Return a VALUES query for `count` rows, with the server's own places `$1, $2, ...`.

    The query has one row of `%s` places after VALUES: `VALUES (%s::uuid, %s::text)`. Callers keep
    to few sizes, so that each text is prepared by the server once.
    """
    found = _GROUP.search(query)
    require(found is not None, "a repeated query has one VALUES row of %s places")
    rows = ", ".join([found[1]] * count) if found else ""
    numbers = itertools.count(1)
    text = _GROUP.sub(lambda _: rows, query).replace("%%", "%")
    return re.sub("%s", lambda _: f"${next(numbers)}", text)


_SIZES: Final = (256, 64, 32, 16, 8, 4, 3, 2, 1)


def portions(size: int) -> Iterator[tuple[int, int]]:
    """Split a number of rows into few statement sizes, so that each is prepared only once."""
    start = 0
    for step in _SIZES:
        while size - start >= step:
            yield start, start + step
            start += step


@lru_cache(maxsize=1024)
def prepared(query: str) -> tuple[str, list[str]]:
    """Return the query with `$1` places and its parameter names in order: what PREPARE wants."""
    names: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if found[0] == "%s":
            names.append(f"#{len(names)}")
            return f"${len(names)}"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return re.sub(r"%\((\w+)\)s|%%|%s", place, query), names
