"""State the tax of documents in the seller's own currency, and keep where they were taxed.

A rate that is not stored is never guessed: the caller hears why, and its customer waits. A credit
note is converted at the rate of the invoice that it takes from, for it corrects what was declared
at that rate; what is stated of all credit notes of a group is the conversion of their sum, so that
the last one closes the cent in this currency too.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference
from convergio.rating.taxing import GroupKey, TaxRow, Unknown
from convergio.taxes import errors, reference, store
from convergio.taxes.model import DocumentTax, Exchange, Kept

SOURCE: Final = "ECB"
_CHUNK: Final = 50_000


def import_rates(
    tx: Tx,
    source: bytes,
    *,
    now: datetime,
    name: str = SOURCE,
    since: date | None = None,
    replace: bool = False,
) -> tuple[int, int]:
    """Store the rates of a file; return how many it holds, and how many of them were new.

    Emits: tax.rates_imported when any was. Raises: Invalid naming the line, or the day on which a
    currency has two rates; Conflict for a rate that differs from the stored one, unless it is to be
    replaced.
    """
    read = reference.read(source)
    rates = reference.once_each(one for one in read if since is None or one.day >= since)
    new = 0
    for at in range(0, len(rates), _CHUNK):
        some = rates[at : at + _CHUNK]
        other = [] if replace else store.list_other_rates(tx, some)
        if other:
            currency, day, before, after = other[0]
            raise errors.other_rate(
                currency, day.isoformat(), f"{before.normalize():f}", f"{after:f}"
            )
        new += store.save_rates(tx, some, source=name, now=now)
    if new:
        outbox.emit(tx, "tax.rates_imported", data={"rates": new, "source": name}, now=now)
    return len(rates), new


def exchanges(
    tx: Tx, home: str, currencies: Iterable[str], day: date
) -> dict[str, Exchange | Unknown]:
    """Return how documents of a day in these currencies become the seller's, or why not."""
    wanted = sorted(set(currencies))
    known = store.list_last_rates(tx, {home, *wanted}, since=day - reference.LOOK_BACK, day=day)
    return {one: reference.exchange(home, one, day, known) for one in wanted}


class Notes:
    """What credit notes state, in the order in which they are asked for."""

    def __init__(self, tx: Tx, customer_ids: Sequence[UUID], invoice_ids: Sequence[UUID]) -> None:
        """Read how their invoices were converted, and what was stated of them so far."""
        self.exchanges: Mapping[UUID, Exchange] = store.list_exchanges(
            tx, customer_ids, invoice_ids
        )
        self._of = store.list_stated(tx, customer_ids) if self.exchanges else {}

    def stated(self, invoice_id: UUID, rows: Iterable[TaxRow], currency: str) -> tuple[TaxRow, ...]:
        """Return the taxes of a credit note of an invoice as stated, and count them."""
        by = self.exchanges[invoice_id]
        found = []
        for row in rows:
            key: tuple[UUID, GroupKey] = (invoice_id, row.key)
            net, tax, stated_net, stated_tax = self._of.get(key, (0, 0, 0, 0))
            net, tax = net + row.net, tax + row.tax
            whole_net = reference.converted(net, currency, by)
            whole_tax = reference.converted(tax, currency, by)
            self._of[key] = (net, tax, whole_net, whole_tax)
            found.append(
                row._replace(stated_net=whole_net - stated_net, stated_tax=whole_tax - stated_tax)
            )
        return tuple(found)


def record(tx: Tx, invoices: Iterable[tuple[UUID, UUID, Kept]]) -> None:
    """Keep how invoices were converted and where they were taxed, in their own transaction."""
    every = list(invoices)
    rates = [(who, what, kept.exchange) for who, what, kept in every if kept.exchange is not None]
    places = [(who, what, kept.place) for who, what, kept in every if kept.place is not None]
    if rates:
        store.copy_exchanges(tx, rates)
    if places:
        store.copy_places(tx, places)


def kept(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Kept:
    """Return what an invoice keeps beside its taxes."""
    return store.find_kept(tx, customer_id, invoice_id)


def misstated(
    tx: Tx, rows: Sequence[DocumentTax], currencies: Mapping[UUID, str]
) -> list[Difference]:
    """Return invoices, and sums of their credit notes, that do not state what they come to.

    `currencies` are those of the invoices.
    """
    told = [one for one in rows if one.row.stated_tax is not None]
    if not told:
        return []
    customer_ids = sorted({one.customer_id for one in told})
    by = store.list_exchanges(tx, customer_ids, sorted({one.document_id for one in told}))
    said = [
        (f"of invoice {one.document_id}", one.document_id, one.row.tax, one.row.stated_tax or 0)
        for one in told
    ]
    said += [
        (f"of credit notes of invoice {invoice_id}", invoice_id, sums[1], sums[3])
        for (invoice_id, _), sums in store.list_stated(tx, customer_ids).items()
    ]
    found = []
    for where, invoice_id, tax, stated_tax in said:
        rate = by.get(invoice_id)
        due = None if rate is None else reference.converted(tax, currencies[invoice_id], rate)
        if due != stated_tax:
            found.append(Difference(f"stated tax {where}", str(due), str(stated_tax)))
    return found
