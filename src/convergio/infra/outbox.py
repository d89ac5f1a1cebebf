"""Facts for other systems, written as rows in the transaction that made them true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from convergio.infra import sql
from convergio.infra.db import Tx

_QUERIES = sql.load(Path(__file__).with_name("queries.sql"))
_FACT = ("text", "uuid", "uuid", "bytea", "timestamptz")  # the bytea is a jsonb: see `Tx.copy`


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened: its type in dotted words, whose, and to what. No personal data."""

    type: str
    customer_id: UUID | None
    subject: UUID | None
    data: Mapping[str, Any] = field(default_factory=dict)


def emit(
    tx: Tx,
    type_: str,
    *,
    now: datetime,
    customer_id: UUID | None = None,
    subject: UUID | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write one fact."""
    emit_many(tx, [Fact(type_, customer_id, subject, data or {})], now=now)


def emit_many(tx: Tx, facts: Sequence[Fact], *, now: datetime) -> None:
    """Write facts in their order, in one COPY."""
    tx.copy(
        _QUERIES["copy_facts"],
        (
            (
                fact.type,
                fact.customer_id,
                fact.subject,
                b"\x01" + msgspec.json.encode(fact.data),
                now,
            )
            for fact in facts
        ),
        types=_FACT,
    )
