"""Answers kept for retried requests: what moves money is done once, however often it is sent.

The key is claimed, the work is done and the answer is stored in one transaction. A crash before
its commit leaves nothing, and the retry does the work; a crash after it leaves the answer, and the
retry is given it byte for byte. Only successes are kept: a refused request changed nothing, and
its key is free for the mended one.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.infra import sql
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Conflict, Invalid

SELLER: Final = UUID(int=0)
KEPT: Final = timedelta(hours=48)
HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[!#-\[\]-~]{1,255}")  # visible ASCII without quotes and backslash
_QUOTED: Final = re.compile(r'"([^"\\]*)"')
_BATCH: Final = 5_000
_QUERIES = sql.load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, and to which request."""

    fingerprint: bytes
    status: int
    body: bytes


class KeyInFlight(Conflict):
    """The first request with this key is still being worked on."""

    code = "request_in_flight"


class KeyReused(Invalid):
    """The key was used for another request."""

    code = "idempotency_key_reused"


def read_key(headers: list[str]) -> str:
    """Return the key of an Idempotency-Key header, quoted (a structured field) or bare.

    Raises: Invalid, also for none or more than one.
    """
    if not headers:
        detail = f"send {HEADER} with a value of your own for each change, and again on a retry"
        raise Invalid(detail, code="idempotency_key_missing", field=HEADER)
    quoted = _QUOTED.fullmatch(headers[0])
    key = quoted[1] if quoted else headers[0]
    if len(headers) > 1 or not _KEY.fullmatch(key):
        detail = "write 1 to 255 visible ASCII characters, such as a UUID, once"
        raise Invalid(detail, code="bad_idempotency_key", field=HEADER)
    return key


def begin(tx: Tx, customer_id: UUID, key: str, fingerprint: bytes) -> Answer | None:
    """Claim a key for this transaction; return the answer if the same request has one.

    Locks: the key, without waiting. Raises: KeyInFlight, KeyReused.
    """
    names = {"customer_id": customer_id, "idempotency_key": key}
    if not tx.value(_QUERIES["claim_request"], **names):
        detail = "a request with this key is being worked on; send it again in a moment"
        raise KeyInFlight(detail, field=HEADER)
    found = tx.one(_QUERIES["find_answer"], Answer, **names)
    if found is not None and found.fingerprint != fingerprint:
        detail = "this key was used for another request; take a new key for a new request"
        raise KeyReused(detail, field=HEADER)
    return found


def keep(tx: Tx, customer_id: UUID, key: str, answer: Answer, *, now: datetime) -> None:
    """Store an answer in the transaction that did the work, whose `begin` has claimed the key."""
    tx.run(
        _QUERIES["insert_answer"],
        customer_id=customer_id,
        idempotency_key=key,
        fingerprint=answer.fingerprint,
        status=answer.status,
        body=answer.body,
        answered_at=now,
    )


def sweep(database: Database, *, now: datetime) -> int:
    """Forget answers older than `KEPT`, one transaction a batch; return how many."""
    gone = 0
    while True:
        with database.transaction() as tx:
            some = tx.run(_QUERIES["delete_answers"], before=now - KEPT, size_max=_BATCH)
        gone += some
        if some < _BATCH:
            return gone
