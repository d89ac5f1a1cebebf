# ruff: noqa: PLR2004 - the odds of a world are numbers, and each stands beside what it decides
"""What a seed draws of coupons, promotional credit and tax, beside the life that is there.

It has a chance of its own, so the rest of a world is the same with it and without; one world in
five has nothing of all this. Rates change, places are told late and coupons are redeemed where it
matters: on a boundary, in the middle, at the very instant of signing up.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from datetime import date, datetime, timedelta
from random import Random
from typing import Any, Final

from convergio.kernel.periods import Calendar, Interval
from convergio.simulation import assortment
from convergio.simulation.script import NOBODY, Script, Step

_PERCENTS: Final = ("20", "33.333333", "12.5", "7.7", "50", "100", "0.5")
_AMOUNTS: Final = ("500", "1", "399", "1000", "2500", "100000")
_CATEGORIES: Final = ("reduced", "training")
_NUMBERS: Final = {
    "DE": "DE136695976",
    "FR": "FR40303265045",
    "IT": "IT00743110157",
    "ES": "ESB58378431",
}
_COUNTRIES: Final = ("IT", "IT", "DE", "FR", "ES", "US", "CH")
_TICK: Final = timedelta(seconds=1)


def with_money(script: Script, seed: int, *, start: datetime, end: datetime) -> Script:
    """Return a world with what its seed draws of coupons, credit and tax added to it."""
    chance = Random(f"money {seed}")
    if chance.random() < 0.2:
        return script
    has_coupons, has_tax, has_credit, has_least, has_units = (
        chance.random() < odds for odds in (0.75, 0.65, 0.5, 0.25, 0.4)
    )
    catalog, steps = dict(script.catalog), list(script.steps)
    if has_least:
        catalog["minimum_charge"] = {"usd": chance.choice(("0.50", "5", "20")), "jpy": "100"}
    coupons = [*_coupons(chance, catalog, (start, end))] if has_coupons else []
    codes = [step.words["code"] for step in coupons if step.verb == "coupon"]
    if has_tax:
        catalog = _categorised(chance, catalog)
        steps += _tax(chance, (start, end))
    parted = {p["key"] for p in catalog["plans"] if any("by" in price for price in p["prices"])}
    for who in script.customers:
        life = [step for step in script.steps if step.who == who]
        if has_coupons:
            steps += _redeemings(chance, who, life, codes, end)
        if has_tax:
            steps += [*_places(chance, who, life, end), *_notes(chance, who, life, end)]
        if has_credit:
            steps += _credit(chance, who, life, end)
        if has_units and parted.isdisjoint(word for step in life for word in step.words.values()):
            steps += _packs(chance, who, life, end)
    return Script(catalog, tuple(sorted([*steps, *coupons], key=lambda step: step.at)))


def _some_time(chance: Random, start: datetime, end: datetime) -> datetime:
    return start + timedelta(seconds=int(chance.random() * (end - start).total_seconds()))


def _in_a_life(chance: Random, life: Sequence[Step], end: datetime) -> datetime:
    """Return when someone gets something: at signing up, on a boundary, or at any time."""
    begins = [step for step in life if step.verb == "subscribe"] or list(life)
    first = chance.choice(begins)
    kind = chance.random()
    if kind < 0.3:
        return first.at + chance.choice((-_TICK, timedelta(0), _TICK))
    if kind < 0.45:
        months = Calendar(first.at, first.words.get("zone", "UTC"), Interval.MONTH)
        return min(months.boundary(chance.randint(1, 6)), end)
    return _some_time(chance, min(life[0].at, end), end)


def _coupons(
    chance: Random, catalog: dict[str, Any], span: tuple[datetime, datetime]
) -> Iterator[Step]:
    start, end = span
    for number in range(chance.randint(2, 6)):
        words = {"code": f"CODE-{number}", **_off(chance), **_for_what(chance, catalog)}
        if chance.random() < 0.2:
            words["limit"] = str(chance.randint(1, 4))
        if chance.random() < 0.3:
            words["each"] = str(chance.randint(2, 3))
        if chance.random() < 0.15:
            words["by"] = _some_time(chance, start, end).isoformat()
        yield Step(start, NOBODY, "coupon", words)
        if chance.random() < 0.1:
            at = _some_time(chance, start, end)
            yield Step(at, NOBODY, "archive", {"code": words["code"]})


def _off(chance: Random) -> dict[str, str]:
    """Return how much a coupon takes off, and for how long."""
    kind, words = chance.random(), {"duration": "repeating"}
    if kind < 0.55:
        words["percent"] = chance.choice(_PERCENTS)
    elif kind < 0.9:
        words |= {"amount": chance.choice(_AMOUNTS), "currency": "usd"}
    else:
        words |= {"amount": chance.choice(("300", "77")), "currency": "jpy"}
    words["duration"] = chance.choice(("once", "repeating", "repeating", "forever"))
    if words["duration"] == "repeating":
        words["periods"] = str(chance.randint(1, 4))
    return words


def _for_what(chance: Random, catalog: dict[str, Any]) -> dict[str, str]:
    """Return which lines a coupon is for: mostly all, or those of a plan or of a price."""
    which, plan = chance.random(), chance.choice(catalog["plans"])
    if which < 0.15:
        return {"plan": plan["key"]}
    if which < 0.3:
        return {"price": chance.choice(plan["prices"])["key"]}
    return {}


def _redeemings(
    chance: Random, who: str, life: Sequence[Step], codes: Sequence[str], end: datetime
) -> Iterator[Step]:
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        at = _in_a_life(chance, life, end)
        yield Step(at, who, "redeem", {"code": chance.choice(codes)})


def _categorised(chance: Random, catalog: dict[str, Any]) -> dict[str, Any]:
    """Return a catalog of which some prices are not of the standard category, or hold their tax."""
    said = deepcopy(catalog)
    for plan in said["plans"]:
        for price in plan["prices"]:
            if chance.random() < 0.3:
                price["tax_category"] = chance.choice(_CATEGORIES)
            if chance.random() < 0.2:
                price["tax_inclusive"] = "true"
    return said


def _tax(chance: Random, span: tuple[datetime, datetime]) -> Iterator[Step]:
    """Yield the tax file, and now and then another one later; the first may have gaps."""
    start, end = span
    first = start if chance.random() < 0.8 else _some_time(chance, start, end)
    seller = chance.choice(("IT", "IT", "DE", "US"))
    change = _some_time(chance, start, end).date()
    oss = chance.choice(("yes", "no"))
    yield Step(first, NOBODY, "tax", _file(chance, seller, oss, change, gaps=True))
    for _ in range(chance.choice((1, 1, 2))):
        words = _file(chance, seller, oss, change, gaps=False)
        yield Step(_some_time(chance, first, end), NOBODY, "tax", words)


def _file(chance: Random, seller: str, oss: str, change: date, *, gaps: bool) -> dict[str, str]:
    homes = {seller: [seller], "US": ["US", "US/CA"]}
    registrations = [f"{chance.choice(homes[seller])}:::2000-01-01:"]
    others = [one for one in ("FR", "US/CA", "CH") if not one.startswith(seller)]
    registrations += [
        f"{one}:::{chance.choice(('', change))}:" for one in others[: chance.randint(0, 2)]
    ]
    rates = []
    for country in ("IT", "DE", "FR", "ES", "US", "US/CA", "CH"):
        for category in ("standard", *_CATEGORIES):
            if gaps and category == "training" and chance.random() < 0.4:
                continue
            before = chance.choice(("22", "20", "7.25", "19", "10", "8.875", "0", "exempt"))
            if chance.random() < 0.4:
                after = chance.choice(("21", "19.6", "5.5"))
                rates += [f"{country}:{category}:{before}::{change}"]
                rates += [f"{country}:{category}:{after}:{change}:"]
            else:
                rates.append(f"{country}:{category}:{before}::")
    words = {"seller": seller, "oss": oss}
    if seller == "IT" and chance.random() < 0.4:
        words["fatturapa"] = "yes"
    return words | {"registrations": ",".join(registrations), "rates": ",".join(rates)}


def _places(chance: Random, who: str, life: Sequence[Step], end: datetime) -> Iterator[Step]:
    yield Step(life[0].at, who, "place", _place(chance))
    for _ in range(chance.choice((0, 0, 1, 2))):
        yield Step(_some_time(chance, life[0].at, end), who, "place", _place(chance))


def _place(chance: Random) -> dict[str, str]:
    if chance.random() < 0.08:
        return {"country": ""}
    country = chance.choice(_COUNTRIES)
    words = {"country": country}
    if country == "US" and chance.random() < 0.8:
        words["region"] = chance.choice(("CA", "NY"))
    if country == "IT":
        words["region"] = "RM"
    if country in _NUMBERS and chance.random() < 0.5:
        number = chance.choice((_NUMBERS[country], f"{country}12345"))
        words |= {"number": number, "checked": chance.choice(("yes", "yes", "no"))}
    if chance.random() < 0.07:
        words["exempt"] = chance.choice(("exempt", "reverse_charge"))
    return words


def _notes(chance: Random, who: str, life: Sequence[Step], end: datetime) -> Iterator[Step]:
    """Yield several credit notes of one invoice: the tax of all of them must close the cent."""
    if chance.random() < 0.5:
        return
    at, invoice = _some_time(chance, min(life[0].at, end), end), str(chance.randint(0, 5))
    for _ in range(chance.randint(2, 3)):
        kind = chance.choice(("concession", "concession", "correction"))
        of = {"line": str(chance.randint(0, 3))} if chance.random() < 0.3 else {"part": "third"}
        yield Step(at, who, "credit", {"invoice": invoice, "kind": kind, **of})
        at = min(at + timedelta(days=chance.randint(0, 20)), end)


def _credit(chance: Random, who: str, life: Sequence[Step], end: datetime) -> Iterator[Step]:
    yen = any(step.words.get("plan") in assortment.YEN for step in life)
    for number in range(chance.choice((0, 1, 2, 3))):
        at = _in_a_life(chance, life, end)
        words = {"key": f"gift-{number}", "amount": chance.choice(_AMOUNTS[: 3 if yen else 6])}
        if chance.random() < 0.4:
            words["priority"] = chance.choice(("1", "50", "100"))
        starts = at
        if chance.random() < 0.3:
            starts = at + timedelta(days=chance.randint(-40, 40))
            words["starts"] = starts.isoformat()
        if chance.random() < 0.6:
            later = max(starts, at) + timedelta(days=chance.randint(1, 90))
            words["expires"] = later.isoformat()
        yield Step(at, who, "grant", words)
        if chance.random() < 0.2:
            gone = min(at + timedelta(days=chance.randint(0, 90)), end)
            yield Step(gone, who, "void_grant", {"key": words["key"]})


def _packs(chance: Random, who: str, life: Sequence[Step], end: datetime) -> Iterator[Step]:
    """Yield prepaid units; not of who may have a price by a dimension, which none can pay."""
    if any("trial" in step.words for step in life):
        return
    for number in range(chance.choice((0, 1, 1, 2))):
        at = _in_a_life(chance, life, end)
        words = {"key": f"pack-{number}", "meter": "questions"}
        words["quantity"] = chance.choice(("5", "20", "33.5", "100", "1000"))
        words["category"] = chance.choice(("purchased", "promotional"))
        if chance.random() < 0.4:
            words["priority"] = chance.choice(("1", "50"))
        starts = at
        if chance.random() < 0.2:
            starts = at + timedelta(days=chance.randint(0, 30))
            words["starts"] = starts.isoformat()
        if chance.random() < 0.6:
            words["expires"] = (starts + timedelta(days=chance.randint(1, 70))).isoformat()
        yield Step(at, who, "grant", words)
        if chance.random() < 0.2:
            gone = min(at + timedelta(days=chance.randint(0, 60)), end)
            yield Step(gone, who, "void_grant", {"key": words["key"]})
