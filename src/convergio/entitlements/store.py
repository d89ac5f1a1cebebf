"""SQL of reservations, leases, spend caps and grants: one function a query, same name."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg import errors as pg

from convergio.entitlements.errors import HasRepeats
from convergio.entitlements.model import CreditGrant, Lease, Reservation, SpendCap
from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.infra.pipe import Question, Values

_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


def copy_reservations(tx: Tx, rows: Sequence[Reservation]) -> None:
    """Store new reservations. Raises: HasRepeats; the transaction must then be given up."""
    columns = (
        (
            row.customer_id,
            row.reservation_id,
            row.meter_id,
            row.start_at,
            row.quantity,
            row.state,
            row.made_at,
            row.expires_at,
        )
        for row in rows
    )
    try:
        tx.copy(_QUERIES["copy_reservations"], columns)
    except pg.UniqueViolation:
        raise HasRepeats from None


def insert_reservations(rows: Sequence[Values]) -> list[Question[Any]]:
    """Ask to store new reservations."""
    return [
        Question(
            sql.repeated(_QUERIES["insert_reservations"], end - start),
            [value for row in rows[start:end] for value in row],
            len,
        )
        for start, end in sql.portions(len(rows))
    ]


def find_reservations(
    tx: Tx, keys: Sequence[tuple[UUID, UUID]]
) -> dict[tuple[UUID, UUID], Reservation]:
    """Return reservations by customer and id; what is not there is left out."""
    rows = tx.many(
        _QUERIES["find_reservations"],
        Reservation,
        customer_ids=[key[0] for key in keys],
        reservation_ids=[key[1] for key in keys],
    )
    return {(row.customer_id, row.reservation_id): row for row in rows}


def lock_reservation(tx: Tx, customer_id: UUID, reservation_id: UUID) -> Reservation | None:
    """Return a reservation. Locks: it."""
    return tx.one(
        _QUERIES["lock_reservation"],
        Reservation,
        customer_id=customer_id,
        reservation_id=reservation_id,
    )


def look_reservation_up(customer_id: UUID, reservation_id: UUID) -> Question[Reservation | None]:
    """Ask for a reservation as it stands."""
    values = (customer_id.hex.encode(), reservation_id.hex.encode())
    return Question(sql.prepared(_QUERIES["look_reservation_up"])[0], values, _read)


def _read(rows: Sequence[Values]) -> Reservation | None:
    if not rows:
        return None
    texts = [value.decode() if value is not None else None for value in rows[0]]
    customer, reservation, meter, start, quantity, state, made, expires, settled_at, settled = texts
    return Reservation(
        UUID(customer), UUID(reservation), int(meter or 0), _instant(start), Decimal(quantity or 0),
        state or "", _instant(made), _instant(expires),
        _instant(settled_at) if settled_at else None, Decimal(settled) if settled else None,
    )  # fmt: skip


def _instant(text: str | None) -> datetime:
    return datetime.fromisoformat(text or "")


def settle_reservation(tx: Tx, rows: Sequence[Reservation]) -> None:
    """Write what became of reservations."""
    tx.run_many(
        _QUERIES["settle_reservation"],
        [
            {
                "customer_id": row.customer_id,
                "reservation_id": row.reservation_id,
                "state": row.state,
                "settled_at": row.settled_at,
                "settled": row.settled,
            }
            for row in rows
        ],
    )


def lock_due_reservations(tx: Tx, *, now: datetime, size: int) -> list[Reservation]:
    """Return reservations whose time is over. Locks: them."""
    return tx.many(_QUERIES["lock_due_reservations"], Reservation, now=now, size=size)


def lock_stale_reservations(
    tx: Tx, customer_id: UUID, meter_id: int, start_at: datetime, *, now: datetime
) -> list[Reservation]:
    """Return reservations of a window whose time is over. Locks: them."""
    return tx.many(
        _QUERIES["lock_stale_reservations"],
        Reservation,
        customer_id=customer_id,
        meter_id=meter_id,
        start_at=start_at,
        now=now,
    )


def stale_reserved(
    tx: Tx, customer_ids: Sequence[UUID], *, now: datetime
) -> dict[tuple[UUID, int], Decimal]:
    """Return what is held in vain, by customer and meter; what is not there is zero."""
    rows = tx.tuples(_QUERIES["stale_reserved"], customer_ids=list(customer_ids), now=now)
    return {(row[0], row[1]): row[2] for row in rows}


def asked_levels(
    tx: Tx, customer_ids: Sequence[UUID], meter_ids: Collection[int], *, now: datetime
) -> dict[tuple[UUID, int], Decimal]:
    """Return by customer and meter the highest level that is asked for and not settled."""
    rows = tx.tuples(
        _QUERIES["asked_levels"],
        customer_ids=list(customer_ids),
        meter_ids=list(meter_ids),
        now=now,
    )
    return {(row[0], row[1]): row[2] for row in rows}


def insert_lease(tx: Tx, lease: Lease) -> bool:
    """Store a new lease; False where its id is a lease already."""
    return tx.run(_QUERIES["insert_lease"], **asdict(lease)) == 1


def find_lease(tx: Tx, customer_id: UUID, lease_id: UUID) -> Lease | None:
    """Return a lease as it stands."""
    return tx.one(_QUERIES["find_lease"], Lease, customer_id=customer_id, lease_id=lease_id)


def lock_lease(tx: Tx, customer_id: UUID, lease_id: UUID) -> Lease | None:
    """Return a lease. Locks: it."""
    return tx.one(_QUERIES["lock_lease"], Lease, customer_id=customer_id, lease_id=lease_id)


def save_lease(tx: Tx, leases: Sequence[Lease]) -> None:
    """Write what became of leases."""
    tx.run_many(_QUERIES["save_lease"], [asdict(lease) for lease in leases])


def lock_ended_leases(tx: Tx, *, now: datetime, size: int) -> list[Lease]:
    """Return open leases whose window has ended. Locks: them."""
    return tx.many(_QUERIES["lock_ended_leases"], Lease, now=now, size=size)


def page_open_leases(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    size: int,
    customer_id: UUID | None,
    expired_by: datetime | None,
) -> list[Lease]:
    """Return the next open leases in order of customer and id."""
    return tx.many(
        _QUERIES["page_open_leases"],
        Lease,
        after_customer=after[0],
        after_lease=after[1],
        customer_id=customer_id,
        expired_by=expired_by,
        size=size,
    )


def lock_spend_caps(tx: Tx, customer_ids: Sequence[UUID]) -> list[SpendCap]:
    """Return the caps of these customers. Locks: them."""
    return tx.many(_QUERIES["lock_spend_caps"], SpendCap, customer_ids=list(customer_ids))


def lock_capped(customer_ids: bytes) -> Question[set[bytes | None]]:
    """Ask which of these customers have a cap, as ids in the server's text. Locks: their caps."""
    query = sql.prepared(_QUERIES["lock_capped"])[0]
    return Question(query, (customer_ids,), lambda rows: {row[0] for row in rows})


def find_spend_cap(tx: Tx, customer_id: UUID) -> SpendCap | None:
    """Return one customer's cap."""
    return tx.one(_QUERIES["find_spend_cap"], SpendCap, customer_id=customer_id)


def save_spend_cap(tx: Tx, cap: SpendCap) -> None:
    """Set a customer's cap."""
    tx.run(_QUERIES["save_spend_cap"], **asdict(cap))


def delete_spend_cap(tx: Tx, customer_id: UUID) -> None:
    """Take a customer's cap away."""
    tx.run(_QUERIES["delete_spend_cap"], customer_id=customer_id)


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and its two sums of what is reserved."""

    customer_id: UUID
    meter_id: int
    start_at: datetime
    found: Decimal
    expected: Decimal


def differing_reserved(tx: Tx) -> list[Differing]:
    """Return windows that hold another quantity than their open reservations and leases."""
    return tx.many(_QUERIES["differing_reserved"], Differing)


def insert_grant(tx: Tx, grant: CreditGrant) -> bool:
    """Store a grant; say whether its key was free."""
    return bool(tx.run(_QUERIES["insert_grant"], **asdict(grant)))


def find_grant_by_key(tx: Tx, customer_id: UUID, key: str) -> CreditGrant | None:
    """Return a grant by the seller's name of it."""
    query = _QUERIES["find_grant_by_key"]
    return tx.one(query, CreditGrant, customer_id=customer_id, key=key)


def lock_grant(tx: Tx, customer_id: UUID, grant_id: UUID) -> CreditGrant | None:
    """Return a grant. Locks: it."""
    query = _QUERIES["lock_grant"]
    return tx.one(query, CreditGrant, customer_id=customer_id, grant_id=grant_id)


def void_grant(tx: Tx, grant: CreditGrant) -> None:
    """Let a grant end."""
    tx.run(
        _QUERIES["void_grant"],
        customer_id=grant.customer_id,
        grant_id=grant.grant_id,
        voided_at=grant.voided_at,
    )


def page_grants(tx: Tx, customer_id: UUID, *, after: UUID, size: int) -> list[CreditGrant]:
    """Return the next grants of a customer in the order of their creation."""
    query = _QUERIES["page_grants"]
    return tx.many(query, CreditGrant, customer_id=customer_id, after=after, size=size)


def list_money_grants(tx: Tx, customer_ids: Sequence[UUID]) -> list[CreditGrant]:
    """Return the grants in money of customers, in the order in which they are drawn."""
    return tx.many(_QUERIES["list_money_grants"], CreditGrant, customer_ids=list(customer_ids))


def page_unit_grants(tx: Tx, *, after: tuple[UUID, UUID], size: int) -> list[CreditGrant]:
    """Return the next grants in units in the order of customer and id."""
    return tx.many(
        _QUERIES["page_unit_grants"],
        CreditGrant,
        after_customer=after[0],
        after_grant=after[1],
        size=size,
    )
