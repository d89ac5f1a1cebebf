# ruff: noqa: PLR2004 - the odds of a world are numbers, and each stands beside what it decides
"""Draw what is beside a plain life: calendars, add-ons, agreements, single charges, new prices.

A life is drawn without them first and then dressed: some of its plans become such as ask a setup
fee, price by value or sell in several currencies; some subscriptions follow the calendar; deeds
are added, often at the instant of another or on a boundary. The chance is one of its own, and a
world in four stays plain, so the worlds of before are still lived.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from convergio.kernel.periods import Calendar, Interval, instant_text
from convergio.simulation import assortment
from convergio.simulation.script import NOBODY, Step

_DAY: Final = timedelta(days=1)
_EVERY: Final = 45.0  # days between two such deeds


class Parts:
    """What a world has beside plain plans."""

    def __init__(self, seed: int) -> None:
        """Decide it from the seed."""
        self._chance = Random(f"parts {seed}")
        self._plain = self._chance.random() < 0.25
        self._calendars = self._chance.choice((0.0, 0.3, 0.7))
        self._values = self._chance.random() < 0.6
        self._catalog: dict[str, Any] = {}
        self._repriced: list[dict[str, Any]] = []

    def catalog(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return what is sold; a plain world sells the rest as well, and nobody takes it."""
        self._catalog = assortment.beside(self._chance, plain)
        return self._catalog

    def life(self, steps: Sequence[Step], end: datetime) -> list[Step]:
        """Return someone's steps, dressed."""
        if self._plain:
            return list(steps)
        chance = self._chance
        yen = any(step.words.get("plan") in assortment.YEN for step in steps)
        plans = self._plans(yen=yen)
        by_calendar = chance.random() < self._calendars
        dressed = [self._dressed(s, plans, by_calendar=by_calendar, yen=yen) for s in steps]
        taken = [step.words["plan"] for step in dressed if "plan" in step.words]
        more = list(self._more(dressed, end, yen=yen))
        if set(taken) & set(assortment.BY_VALUE):
            more += self._late(dressed, end)
        self._repriced += [p for plan in taken for p in self._prices(plan) if _is_plain(p)]
        return sorted([*dressed, *more], key=lambda step: step.at)

    def business(self, start: datetime, end: datetime) -> Iterator[Step]:
        """Yield new versions of prices that someone drawn before has, and the moves to them."""
        chance = self._chance
        for version in range(2, 2 + (chance.randint(1, 6) if self._repriced else 0)):
            price = chance.choice(self._repriced)
            at = start + (end - start) * chance.random()
            charge = _text(assortment.other(chance, price))
            words = {"price": price["key"], "version": str(version)}
            yield Step(at.replace(microsecond=0), NOBODY, "reprice", {**words, "charge": charge})
            if chance.random() < 0.8:
                moved = (at + chance.randint(0, 20) * _DAY).replace(microsecond=0)
                since = moved + chance.choice((-9, 0, 3, 12, 40)) * _DAY
                if chance.random() < 0.3:
                    since = datetime(since.year, since.month, 1, tzinfo=UTC)
                yield Step(moved, NOBODY, "migrate", {**words, "since": instant_text(since)})

    def _plans(self, *, yen: bool) -> dict[str, str]:
        """Return which plans are others in this life."""
        chance = self._chance
        if yen:
            return {"yen-plus": "world"} if chance.random() < 0.5 else {}
        some = [*assortment.SETUP, *assortment.WORLD[:1]]
        number = chance.choice((0, 1, 2, 3))
        if self._values and chance.random() < 0.6:
            some += assortment.BY_VALUE * 2
            number = 5
        chance.shuffle(some)
        return dict(zip(chance.sample(assortment.LADDER, number), some, strict=False))

    def _dressed(
        self, step: Step, plans: dict[str, str], *, by_calendar: bool, yen: bool
    ) -> Step:  # fmt: skip
        words = dict(step.words)
        if "plan" in words:
            words["plan"] = plans.get(words["plan"], words["plan"])
        if step.verb == "subscribe":
            if by_calendar and "trial" not in words:
                words["anchor"] = "calendar"
            if yen:
                words["currency"] = "jpy"
        if step.verb in {"use", "amend"} and self._values:
            same = Random(f"{step.verb} {words['id']}")
            for name, values in (("model", assortment.MODELS), ("region", assortment.REGIONS)):
                value = same.choice((*values, ""))
                words |= {name: value} if value else {}
        return replace(step, words=words)

    def _more(self, steps: Sequence[Step], end: datetime, *, yen: bool) -> Iterator[Step]:
        chance, first = self._chance, next(s for s in steps if s.verb == "subscribe")
        at, had = first.at, set[str]()
        while True:
            at += timedelta(seconds=1 + int(chance.expovariate(1 / (_EVERY * 86_400))))
            if at >= end:
                return
            at, kind = _moved(chance, steps, at), chance.random()
            if kind < 0.5:
                verb, words = "add_on", _add_on(chance, had, yen=yen)
            elif kind < 0.65:
                verb, words = "charge", _single(chance, yen=yen)
            else:
                verb, words = "agree", self._agreed(steps, at, end)
            if words:
                yield Step(at, first.who, verb, words)

    def _late(self, steps: Sequence[Step], end: datetime) -> Iterator[Step]:
        """Yield events that come after their period, and then move from one value to another."""
        chance, first = self._chance, next(s for s in steps if s.verb == "subscribe")
        for number in range(chance.randint(2, 6)):
            at = (first.at + (end - first.at) * chance.random()).replace(microsecond=0)
            sent = at + chance.randint(20, 60) * _DAY
            name = f"{first.who}-late-{number}"
            if sent < end:
                yield Step(
                    sent, first.who, "use", {"id": name, "time": at.isoformat()} | self._big()
                )
            moved = sent + chance.randint(0, 30) * _DAY
            if moved < end and chance.random() < 0.6:
                verb, words = chance.choice((("void", {}), ("amend", self._big())))
                about = {"id": name, "fix": f"{name}-{verb}"}
                yield Step(moved, first.who, verb, about | words)

    def _big(self) -> dict[str, str]:
        """Return data that costs something whatever is included."""
        data = {"quantity": self._chance.choice(("60", "120", "250"))}
        for name, values in (("model", assortment.MODELS), ("region", assortment.REGIONS)):
            value = self._chance.choice((*values, ""))
            data |= {name: value} if value else {}
        return data

    def _agreed(self, steps: Sequence[Step], at: datetime, end: datetime) -> dict[str, str]:
        """Return the words of an agreement about what they should have by then."""
        chance = self._chance
        known = [s.words["plan"] for s in steps if s.at <= at and "plan" in s.words]
        prices = [p for p in self._prices(known[-1]) if "once" not in p and "currencies" not in p]
        if not prices or known[-1] == "free":
            return {}
        made, since = [], at
        for place in range(chance.choice((1, 1, 2, 3))):
            some = chance.sample(prices, chance.randint(1, len(prices)))
            step: dict[str, Any] = {"prices": {p["key"]: self._terms(p) for p in some}}
            if place or chance.random() < 0.4:
                since = _moved(chance, steps, since + chance.randint(1, 70) * _DAY)
                since = max(since, at + timedelta(seconds=1))
                step["at"] = instant_text(since)
            made.append(step)
        instants = [step.get("at", "") for step in made]
        good = instants == sorted(set(instants)) and since < end + 60 * _DAY
        return {"steps": _text(made)} if good else {}

    def _terms(self, price: dict[str, Any]) -> dict[str, Any]:
        terms: dict[str, Any] = {"charge": assortment.other(self._chance, price)}
        if "quota" in price and self._chance.random() < 0.5:
            terms["quota"] = {"limit": self._chance.choice(("12", "60")), "hard": "true"}
            terms["charge"]["included"] = terms["quota"]["limit"]
        if "charges" in price:
            value = self._chance.choice(sorted(price["charges"]))
            terms["charges"] = {value: assortment.other(self._chance, price)}
        return terms

    def _prices(self, plan: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = next(
            one["prices"] for one in self._catalog["plans"] if one["key"] == plan
        )
        return found


def _is_plain(price: dict[str, Any]) -> bool:
    """Say whether a price has one charge, asked again and again, that is not for nothing."""
    return not {"once", "by", "currencies"} & price.keys() and price["charge"].get("unit") != "0"


def _add_on(chance: Random, had: set[str], *, yen: bool) -> dict[str, str]:
    """Return the words for an add-on: more or less of one that they have, or another one."""
    key = "support" if yen else chance.choice(assortment.ADD_ONS)
    most = 4 if key == "support" else 1
    words = {"key": key, "quantity": str(chance.randint(1, most))}
    if key in had and chance.random() < 0.6:
        words["quantity"] = "0"
        words |= {"when": "period_end"} if chance.random() < 0.4 else {}
    had.add(key)
    return words


def _single(chance: Random, *, yen: bool) -> dict[str, str]:
    amount = chance.choice(("300", "1999") if yen else ("25.00", "0.07", "250.00"))
    when = chance.choice(("now", "period_end"))
    return {"name": chance.choice(("onboarding", "migration")), "amount": amount, "when": when}


def _moved(chance: Random, steps: Sequence[Step], at: datetime) -> datetime:
    """Return an instant near this one where more happens: another deed, or a boundary."""
    kind = chance.random()
    if kind < 0.2:
        near = [s.at for s in steps if s.at >= at and s.verb != "use"]
        return min(near, default=at)
    if kind < 0.4:
        began = next(s for s in reversed(steps) if s.verb == "subscribe" and s.at <= at)
        start = datetime.fromisoformat(began.words.get("start", began.at.isoformat()))
        anchor = start + int(began.words.get("trial", "0")) * _DAY
        months = Calendar(anchor, began.words["zone"], Interval.MONTH)
        return months.boundary(months.number_at(max(at, anchor)) + 1)
    return at.replace(microsecond=0)


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
