"""API keys in Postgres: found by hash, listed by what may be shown."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.identity.model import ApiKey
from convergio.infra import sql
from convergio.infra.db import Tx

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


def insert_api_key(tx: Tx, api_key: ApiKey, *, key_hash: bytes) -> None:
    """Keep a new key."""
    tx.run(QUERIES["insert_api_key"], **asdict(api_key), key_hash=key_hash)


def find_api_key_by_hash(tx: Tx, key_hash: bytes) -> ApiKey | None:
    """Return the key that was presented, dead or alive."""
    return tx.one(QUERIES["find_api_key_by_hash"], ApiKey, key_hash=key_hash)


def find_api_key(tx: Tx, api_key_id: UUID) -> ApiKey | None:
    """Return one key."""
    return tx.one(QUERIES["find_api_key"], ApiKey, api_key_id=api_key_id)


def find_api_keys(
    tx: Tx, *, customer_id: UUID | None, after: UUID | None, size_max: int
) -> list[ApiKey]:
    """Return a page of keys, of one customer or of all."""
    query = QUERIES["find_api_keys"]
    return tx.many(query, ApiKey, customer_id=customer_id, after=after, size_max=size_max)


def revoke_api_key(tx: Tx, api_key_id: UUID, *, now: datetime) -> bool:
    """End a key; say False when there was none to end."""
    return tx.run(QUERIES["revoke_api_key"], api_key_id=api_key_id, now=now) == 1
