"""Customers in Postgres: the directory finds the id, and the id finds everything else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.customers.model import Customer, SealedPersonal
from convergio.infra import sql
from convergio.infra.db import Tx

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


def insert_directory(tx: Tx, ids: Mapping[str, UUID]) -> int:
    """Give keys to ids, in key order so that two writers cannot deadlock; return how many."""
    rows = [{"customer_key": key, "customer_id": ids[key]} for key in sorted(ids)]
    return tx.run_many(QUERIES["insert_directory"], rows)


def find_ids(tx: Tx, customer_keys: Sequence[str]) -> dict[str, UUID]:
    """Return the ids of the keys that are known."""
    return dict(tx.tuples(QUERIES["find_ids"], customer_keys=customer_keys))


def insert_customer(tx: Tx, customer: Customer, sealed: SealedPersonal) -> None:
    """Keep one customer."""
    tx.run(QUERIES["insert_customer"], **asdict(customer), **asdict(sealed))


def lock_customer(tx: Tx, customer_id: UUID) -> Customer | None:
    """Return one customer, held against other changes of it."""
    return tx.one(QUERIES["lock_customer"], Customer, customer_id=customer_id)


def save_customer(tx: Tx, customer: Customer, sealed: SealedPersonal) -> None:
    """Keep what may change of a customer."""
    fixed = {"customer_key", "currency", "created_at"}
    values = {name: value for name, value in asdict(customer).items() if name not in fixed}
    tx.run(QUERIES["save_customer"], **values, **asdict(sealed))


def copy_customers(tx: Tx, customers: Iterable[Customer]) -> None:
    """Load new customers that have no personal data yet."""
    rows = (
        (
            it.customer_id, it.customer_key, it.currency, it.country, it.locale, it.created_at,
            it.updated_at,
        )
        for it in customers
    )  # fmt: skip
    tx.copy(QUERIES["copy_customers"], rows)


def find_customer(tx: Tx, customer_id: UUID) -> Customer | None:
    """Return one customer."""
    return tx.one(QUERIES["find_customer"], Customer, customer_id=customer_id)


def find_customers(tx: Tx, *, after: UUID | None, size_max: int) -> list[Customer]:
    """Return a page of customers."""
    return tx.many(QUERIES["find_customers"], Customer, after=after, size_max=size_max)


def find_customers_by_email(tx: Tx, email_index: bytes, *, size_max: int) -> list[Customer]:
    """Return the customers whose e-mail has this blind index."""
    query = QUERIES["find_customers_by_email"]
    return tx.many(query, Customer, email_index=email_index, size_max=size_max)


def find_sealed(tx: Tx, customer_id: UUID) -> SealedPersonal | None:
    """Return one customer's personal data, sealed."""
    return tx.one(QUERIES["find_sealed"], SealedPersonal, customer_id=customer_id)


def list_customers(tx: Tx, customer_ids: Sequence[UUID]) -> list[Customer]:
    """Return many customers by id."""
    return tx.many(QUERIES["list_customers"], Customer, customer_ids=list(customer_ids))


def list_sealed(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, SealedPersonal]:
    """Return the sealed personal data of those who have any."""
    rows = tx.tuples(QUERIES["list_sealed"], customer_ids=list(customer_ids))
    return {row[0]: SealedPersonal(*row[1:]) for row in rows}
