"""The queries of discounts: one function each."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from convergio.discounts.model import (
    Coupon,
    Draw,
    DrawRow,
    Duration,
    LinePlace,
    OverdrawnRow,
    Redemption,
    Span,
    Terms,
)
from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.kernel.periods import Interval

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
_NOWHERE: Final = (None, None)


def insert_coupon(tx: Tx, coupon_id: UUID, terms: Terms, *, created_at: datetime) -> bool:
    """Keep a coupon; say whether its code was free."""
    values = asdict(terms) | {"plans": list(terms.plans), "prices": list(terms.prices)}
    query = QUERIES["insert_coupon"]
    return bool(tx.tuples(query, coupon_id=coupon_id, created_at=created_at, **values))


def find_coupon(tx: Tx, code: str) -> Coupon | None:
    """Return the coupon with a code."""
    rows = tx.tuples(QUERIES["find_coupon"], code=code)
    return _coupon(rows[0]) if rows else None


def page_coupons(tx: Tx, *, after: UUID | None, limit: int) -> list[Coupon]:
    """Return the next coupons in the order of their making."""
    rows = tx.tuples(QUERIES["page_coupons"], after=after, limit=limit)
    return [_coupon(row) for row in rows]


def archive_coupon(tx: Tx, coupon_id: UUID, *, archived_at: datetime) -> None:
    """Take a coupon off offer."""
    tx.run(QUERIES["archive_coupon"], coupon_id=coupon_id, archived_at=archived_at)


def take_coupon(tx: Tx, coupon_id: UUID) -> bool:
    """Count one more redemption; say whether one was left."""
    return bool(tx.tuples(QUERIES["take_coupon"], coupon_id=coupon_id))


def count_redeemed(tx: Tx, customer_id: UUID, coupon_id: UUID) -> int:
    """Return how often a customer redeemed a coupon."""
    query = QUERIES["count_redeemed"]
    count: int = tx.value(query, customer_id=customer_id, coupon_id=coupon_id)
    return count


def insert_redemption(tx: Tx, one: Redemption) -> None:
    """Keep a redemption."""
    tx.run(
        QUERIES["insert_redemption"],
        customer_id=one.customer_id,
        redemption_id=one.redemption_id,
        coupon_id=one.coupon_id,
        redeemed_at=one.redeemed_at,
        anchor_at=one.span.anchor_at,
        time_zone=one.span.time_zone,
        interval=one.span.interval.value,
        first_period=one.span.first,
        last_period=one.span.last,
        price_keys=None if one.price_keys is None else sorted(one.price_keys),
    )


def list_redemptions(tx: Tx, customer_ids: Sequence[UUID]) -> list[Redemption]:
    """Return what these customers redeemed, in the order of use."""
    rows = tx.tuples(QUERIES["list_redemptions"], customer_ids=list(customer_ids))
    return [_redemption(row) for row in rows]


def list_drawn(tx: Tx, customer_ids: Sequence[UUID]) -> dict[tuple[UUID, int], int]:
    """Return what redemptions of these customers took off each period number."""
    rows = tx.tuples(QUERIES["list_drawn"], customer_ids=list(customer_ids))
    return {(redemption_id, number): amount for redemption_id, number, amount in rows}


def page_granted(tx: Tx, *, after: UUID, limit: int) -> list[UUID]:
    """Return the next customers of whom promotional credit was drawn."""
    return [row[0] for row in tx.tuples(QUERIES["page_granted"], after=after, limit=limit)]


def list_granted(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return what these customers' grants took off lines."""
    return dict(tx.tuples(QUERIES["list_granted"], customer_ids=list(customer_ids)))


def copy_coupon_draws(tx: Tx, draws: Iterable[DrawRow]) -> None:
    """Load what redemptions took off lines."""
    tx.copy(
        QUERIES["copy_coupon_draws"],
        (
            (d.customer_id, d.source_id, d.invoice_id, d.line_number, d.period_number, d.amount,
             *(d.origin or _NOWHERE))
            for d in draws
        ),
    )  # fmt: skip


def copy_grant_draws(tx: Tx, draws: Iterable[DrawRow]) -> None:
    """Load what grants took off lines."""
    tx.copy(
        QUERIES["copy_grant_draws"],
        (
            (d.customer_id, d.source_id, d.invoice_id, d.line_number, d.amount,
             *(d.origin or _NOWHERE))
            for d in draws
        ),
    )  # fmt: skip


def return_coupon_draws(tx: Tx, draws: Sequence[DrawRow], *, returned_at: datetime) -> None:
    """Count what was given back of what redemptions took off lines."""
    tx.run(QUERIES["return_coupon_draws"], returned_at=returned_at, **_returned(draws))


def return_grant_draws(tx: Tx, draws: Sequence[DrawRow], *, returned_at: datetime) -> None:
    """Count what was given back of what grants took off lines."""
    tx.run(QUERIES["return_grant_draws"], returned_at=returned_at, **_returned(draws))


def _returned(draws: Sequence[DrawRow]) -> dict[str, list[Any]]:
    return {
        "customer_ids": [one.customer_id for one in draws],
        "source_ids": [one.source_id for one in draws],
        "invoice_ids": [one.invoice_id for one in draws],
        "line_numbers": [one.line_number for one in draws],
        "amounts": [one.amount for one in draws],
    }


def list_taken(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, list[Draw]]:
    """Return by line what took something off it, as far as that did not come back."""
    found: dict[LinePlace, list[Draw]] = {}
    rows = tx.tuples(QUERIES["list_taken"], customer_ids=list(customer_ids))
    for invoice_id, line, source_id, number, amount in rows:
        found.setdefault((invoice_id, line), []).append(Draw(source_id, number, amount))
    return found


def list_returned(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, int]:
    """Return by line what credit notes gave back of its discount."""
    rows = tx.tuples(QUERIES["list_returned"], customer_ids=list(customer_ids))
    return {(invoice_id, line): amount for invoice_id, line, amount in rows}


def list_draws(tx: Tx, customer_id: UUID, invoice_id: UUID) -> list[tuple[int, str | None, int]]:
    """Return by line what took something off it: a coupon's code, None for credit, and how much."""
    rows = tx.tuples(QUERIES["list_draws"], customer_id=customer_id, invoice_id=invoice_id)
    return [(line, code, amount) for line, code, amount in rows]


def list_drawn_lines(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, int]:
    """Return by invoice and line what was taken off it."""
    rows = tx.tuples(QUERIES["list_drawn_lines"], customer_ids=list(customer_ids))
    return {(invoice_id, line): amount for invoice_id, line, amount in rows}


def find_overdrawn(tx: Tx) -> list[OverdrawnRow]:
    """Return redemptions of which more was drawn for a period than there is."""
    return tx.many(QUERIES["find_overdrawn"], OverdrawnRow)


def find_uncounted(tx: Tx) -> list[tuple[str, int, int]]:
    """Return coupons that were redeemed more or less often than they say."""
    return [(code, said, found) for code, said, found in tx.tuples(QUERIES["find_uncounted"])]


def _coupon(row: tuple[Any, ...]) -> Coupon:
    values = (*row[1:6], Duration(row[6]), row[7], tuple(row[8]), tuple(row[9]), *row[10:13])
    return Coupon(row[0], Terms(*values), *row[13:])


def _redemption(row: tuple[Any, ...]) -> Redemption:
    span = Span(row[9], row[10], Interval(row[11]), row[12], row[13])
    return Redemption(*(*row[:9], span, None if row[14] is None else frozenset(row[14])))
