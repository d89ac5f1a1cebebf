"""The oracle's idea of what is beside a plan: add-ons, single charges, agreed prices, versions.

Written from `docs/howto/agreements.md`, `docs/howto/catalog.md` and RULES 3.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from convergio.simulation.oracle_calendar import boundary
from convergio.simulation.oracle_holds import (
    OF_ITS_OWN,
    Agreement,
    Change,
    Hold,
    Plans,
    Price,
    interval,
)

DEFAULT = "usd"


class Shop:
    """What is on sale to one customer, in the currency in which they pay."""

    def __init__(self, plans: Plans, currency: str) -> None:
        """Begin with the catalog file's plans, by key."""
        self.currency = currency
        self._sold = {
            key: tuple(price for one in plan["prices"] for price in in_currency(one, currency))
            for key, plan in plans.items()
        }

    def sold(self, plan: str) -> tuple[Price, ...]:
        """Return a plan's prices of today."""
        return self._sold[plan]

    def reprice(self, words: Mapping[str, str]) -> None:
        """Sell a price in a new version from now on; who has an older one keeps it."""
        newer = {"version": words["version"], "charge": json.loads(words["charge"])}
        for plan, prices in self._sold.items():
            self._sold[plan] = tuple(
                {**price, **newer} if price["key"] == words["price"] else price for price in prices
            )

    def version(self, key: str, version: str) -> Price | None:
        """Return a version that is on sale."""
        every = (price for prices in self._sold.values() for price in prices)
        return next((p for p in every if (p["key"], p.get("version")) == (key, version)), None)


def in_currency(price: Price, currency: str) -> Iterator[Price]:
    """Yield what a line of the catalog file sells in a currency, if anything."""
    if price.get("currency", DEFAULT) == currency:
        yield price
    elif currency in price.get("currencies", {}):
        charge = price["currencies"][currency]
        yield {**price, "key": f"{price['key']}_{currency}", "charge": charge}


def add_on(
    shop: Shop, live: Agreement, words: Mapping[str, str], at: datetime, fact: int, *,
    later: datetime | None,
) -> None:  # fmt: skip
    """Take so many of an add-on from now on, or none of it any more: now, or when a period ends."""
    key, count = words["key"], int(words["quantity"])
    why = f"{key} changed to {count}" if count else f"{key} removed"
    for hold in live.lasting(at, key):
        hold.end(later or at, credited=later is None, why=why, fact=fact)
    if not count:
        for hold in live.to_ask(later or at, key):
            hold.end(at, credited=True, why=why, fact=fact)
        return
    for price in shop.sold(key):
        live.hold(price, at, fact, count=count, add=key)


def charge(live: Agreement, words: Mapping[str, str], at: datetime, fact: int) -> None:
    """Ask for an amount once, whatever becomes of the subscription."""
    name = words["name"]
    amount = {"model": "flat", "amount": words["amount"]}
    price = {"key": f"{name}#{fact}", "name": name, "once": "true", "charge": amount}
    live.holds.append(Hold(price, 1, at, fact, beside=OF_ITS_OWN))


def agreed(live: Agreement, words: Mapping[str, str], at: datetime) -> Iterator[Change]:
    """Yield the steps of an agreement; each builds on the one before."""
    prices = live.pinned
    for step in json.loads(words["steps"]):
        prices = tuple(_agreed(price, step["prices"]) for price in prices)
        since = datetime.fromisoformat(step["at"]) if "at" in step else at
        yield Change(since, live.plan, prices, live.seats)


def _agreed(price: Price, terms: Mapping[str, Mapping[str, Any]]) -> Price:
    new = terms.get(price["key"])
    if new is None:
        return price
    charges = {**price.get("charges", {}), **new.get("charges", {})}
    made = {**price, **new, "own": "yes"}
    return {**made, "charges": charges} if charges else made


def migrated(
    shop: Shop, live: Agreement, words: Mapping[str, str], at: datetime
) -> Change | None:  # fmt: skip
    """Return the change to a newer version of a price, at the first of its periods to begin."""
    newer = shop.version(words["price"], words["version"])
    if newer is None or all(not _is_older(one, newer) for one in live.pinned):
        return None
    since = max(datetime.fromisoformat(words["since"]), at)
    number = 0
    while (start := boundary(live.anchor, live.zone, interval(newer), number)) < since:
        number += 1
    prices = tuple(newer if _is_older(one, newer) else one for one in live.pinned)
    return Change(start, live.plan, prices, live.seats)


def _is_older(price: Price, newer: Price) -> bool:
    same = price["key"] == newer["key"] and "own" not in price
    return same and int(price.get("version", "1")) < int(newer["version"])
