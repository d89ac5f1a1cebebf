"""The wrapped keys in Postgres. Nothing here has ever seen an unwrapped one."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.crypto.model import StoredKey
from convergio.infra import sql
from convergio.infra.db import Tx

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


def find_data_keys(tx: Tx, customer_id: UUID) -> list[StoredKey]:
    """Return every version of one owner's data key, oldest first."""
    return tx.many(QUERIES["find_data_keys"], StoredKey, customer_id=customer_id)


def find_many_data_keys(tx: Tx, customer_ids: Sequence[UUID]) -> list[StoredKey]:
    """Return every version of many owners' data keys, each owner's together, oldest first."""
    return tx.many(QUERIES["find_many_data_keys"], StoredKey, customer_ids=customer_ids)


def insert_data_key(tx: Tx, key: StoredKey, *, now: datetime) -> bool:
    """Keep a data key; say False when the owner already has one of that version."""
    inserted = tx.run(
        QUERIES["insert_data_key"],
        customer_id=key.customer_id,
        key_version=key.key_version,
        kek_id=key.kek_id,
        wrapped=key.wrapped,
        now=now,
    )
    return inserted == 1


def find_retention_keys(tx: Tx) -> list[StoredKey]:
    """Return every version of the retention key, oldest first."""
    return tx.many(QUERIES["find_retention_keys"], StoredKey)


def insert_retention_key(tx: Tx, key: StoredKey, *, now: datetime) -> bool:
    """Keep a retention key; say False when there is one of that version."""
    inserted = tx.run(
        QUERIES["insert_retention_key"],
        key_version=key.key_version,
        kek_id=key.kek_id,
        wrapped=key.wrapped,
        now=now,
    )
    return inserted == 1


def find_data_keys_to_rewrap(tx: Tx, kek_id: str, *, size_max: int) -> list[StoredKey]:
    """Return data keys that another KEK than `kek_id` wraps."""
    query = QUERIES["find_data_keys_to_rewrap"]
    return tx.many(query, StoredKey, kek_id=kek_id, size_max=size_max)


def find_retention_keys_to_rewrap(tx: Tx, kek_id: str, *, size_max: int) -> list[StoredKey]:
    """Return retention keys that another KEK than `kek_id` wraps."""
    query = QUERIES["find_retention_keys_to_rewrap"]
    return tx.many(query, StoredKey, kek_id=kek_id, size_max=size_max)


def rewrap_data_key(tx: Tx, keys: Sequence[tuple[StoredKey, StoredKey]]) -> int:
    """Replace each old wrapping by its new one; return how many were still the old one."""
    return tx.run_many(QUERIES["rewrap_data_key"], [_rewrapped(old, new) for old, new in keys])


def rewrap_retention_key(tx: Tx, keys: Sequence[tuple[StoredKey, StoredKey]]) -> int:
    """Replace each old wrapping by its new one; return how many were still the old one."""
    return tx.run_many(QUERIES["rewrap_retention_key"], [_rewrapped(old, new) for old, new in keys])


def _rewrapped(old: StoredKey, new: StoredKey) -> dict[str, object]:
    return {
        "customer_id": new.customer_id,
        "key_version": new.key_version,
        "kek_id": new.kek_id,
        "wrapped": new.wrapped,
        "old_kek_id": old.kek_id,
    }
