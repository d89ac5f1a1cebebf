"""How many statements a piece of work sends: what shows that it goes in bulk, on any machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest


@contextmanager
def counting() -> Iterator[list[object]]:
    """Collect what is sent over psycopg, by every connection of this process."""
    sent: list[object] = []
    execute, copy = psycopg.Cursor.execute, psycopg.Cursor.copy

    def counted(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as it is
        sent.append(query)
        return execute(cursor, query, *args, **more)

    def copied(cursor: Any, query: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as it is
        sent.append(query)
        return copy(cursor, query, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted)
        patch.setattr(psycopg.Cursor, "copy", copied)
        yield sent
