"""What documents say beside their taxes: the tax in the seller's currency, and where it is due.

One look after everything else is decided, with one query a page and none where no document is in
another currency. Who cannot be converted waits with the reason, like one whose tax is unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Final
from uuid import UUID

from convergio.billing.model import CreditDraft, Draft, InvoiceView, Problem
from convergio.infra.db import Tx
from convergio.kernel.money import Money
from convergio.kernel.quantity import quantity_text
from convergio.rating.taxing import Place, Unknown
from convergio.taxes import reference, stating
from convergio.taxes.model import Kept, Placed, Stored

RATE_UNKNOWN: Final = "rate_unknown"


def declared(
    tx: Tx,
    drafts: Sequence[Draft],
    notes: Sequence[CreditDraft],
    *,
    stored: Stored | None,
    places: Mapping[UUID, Place],
    day: date,
) -> tuple[list[Draft], list[CreditDraft], list[Problem]]:
    """Return documents of a day with what they keep and state, and who waits for a rate."""
    if stored is None:
        return list(drafts), list(notes), []
    home = stored.book.seller_country
    foreign = {one.total.currency for one in drafts if one.taxes}
    foreign = {one for one in foreign if stored.states(one)}
    rates = stating.exchanges(tx, stored.currency or "", foreign, day) if foreign else {}
    problems: dict[UUID, Problem] = {}
    made = []
    for draft in drafts:
        place = _placed(draft, places.get(draft.customer_id), home)
        rate = rates.get(draft.total.currency) if draft.taxes else None
        if isinstance(rate, Unknown):
            problems[draft.customer_id] = Problem(draft.customer_id, RATE_UNKNOWN, rate.reason)
        elif rate is not None:
            rows = reference.stated(draft.taxes, draft.total.currency, rate)
            made.append(replace(draft, taxes=rows, kept=Kept(rate, place)))
        else:
            made.append(draft if place is None else replace(draft, kept=Kept(None, place)))
    made = [one for one in made if one.customer_id not in problems]
    left = [one for one in notes if one.customer_id not in problems]
    return made, declared_notes(tx, left), list(problems.values())


def _placed(draft: Draft, place: Place | None, home: str) -> Placed | None:
    """Return where an invoice is taxed and why, where that is not plain: abroad, or by evidence."""
    if place is None or place.country is None or not draft.taxes:
        return None
    if place.country == home and not place.evidence:
        return None
    country = next((one.bearing.country for one in draft.lines if one.bearing.country), None)
    evidence: tuple[tuple[str, str], ...] = (("billing", place.country),)
    if place.is_verified:
        evidence += (("vat_number", place.country),)
    return Placed(country, evidence + place.evidence)


def declared_notes(tx: Tx, notes: Sequence[CreditDraft]) -> list[CreditDraft]:
    """Return credit notes with what they state, as their invoices did."""
    taxed = [one for one in notes if one.taxes]
    if not taxed:
        return list(notes)
    customer_ids = sorted({one.customer_id for one in taxed})
    known = stating.Notes(tx, customer_ids, [one.invoice_id for one in taxed])
    return [
        replace(one, taxes=known.stated(one.invoice_id, one.taxes, one.total.currency))
        if one.taxes and one.invoice_id in known.exchanges
        else one
        for one in notes
    ]


def kept_value(view: InvoiceView) -> dict[str, Any]:
    """Return what an invoice keeps beside its taxes as JSON takes it: each null where it is not."""
    told, by, place = (
        reference.stated_tax(view.taxes, view.kept),
        view.kept.exchange,
        view.kept.place,
    )
    stated = None
    if told is not None and by is not None:
        stated = {
            "currency": told[0],
            "tax": Money(told[1], told[0]).text(),
            "rate": quantity_text(by.foreign_rate),
            "own_rate": quantity_text(by.home_rate),
            "published": by.day.isoformat(),
            "source": by.source,
        }
    shown = None
    if place is not None:
        evidence = [{"kind": kind, "country": where} for kind, where in place.evidence]
        shown = {"country": place.country, "evidence": evidence}
    return {"stated_tax": stated, "tax_place": shown}
