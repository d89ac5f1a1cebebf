# ruff: noqa: PLR2004 - the odds of a world are numbers, and each stands beside what it decides
"""From a seed to a script: who signs up, what they do, what arrives late, when the business bills.

The draw keeps a rough idea of each customer (on a trial, active, paused, gone), so that most of
what it writes can be done; what cannot is refused by the product, and the oracle is not told.
Instants cluster where billing goes wrong: on a boundary to the second, twice at one instant, in
the hour that daylight saving skips, on the 31st.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from convergio.kernel.periods import Calendar, Interval
from convergio.simulation import assortment, drawing_parts
from convergio.simulation.drawing_money import with_money
from convergio.simulation.script import NOBODY, Script, Step

_ZONES: Final = (
    "UTC", "UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
    "America/Sao_Paulo", "Pacific/Auckland",
)  # fmt: skip
_STARTS: Final = (
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2025, 1, 1, tzinfo=UTC),
    datetime(2025, 9, 20, tzinfo=UTC),
)
_PLANS: Final = ("free", *assortment.LADDER, "team", "metered", "yearly", "weekly", "quarterly")
_TOKENS: Final = ("tok_ok", "tok_ok", "tok_ok", "tok_declined", "tok_declined_twice")
_DAY: Final = timedelta(days=1)
_QUANTITIES: Final = ("1", "5", "10", "10", "20", "30", "7", "0.5", "2.25", "0.000000001")
_ACTIONS_EVERY: Final = 24.0  # days
_EVENTS_EVERY: Final = 8.0
_FIRST_HALF: Final = 0.5
_ON_A_BOUNDARY: Final = 0.08


@dataclass(slots=True)
class _Person:
    """What the draw believes of someone."""

    key: str
    plans: tuple[str, ...]
    plan: str
    zone: str
    at: datetime
    anchor: datetime
    state: str = "active"
    seats: int = 1
    steps: list[Step] = field(default_factory=list)

    def does(self, verb: str, at: datetime, /, **words: str) -> None:
        """Write a step."""
        self.steps.append(Step(at, self.key, verb, words))


def drawn(seed: int, *, customers: int, months: int) -> Script:
    """Return the script of a seed."""
    chance = Random(seed)
    start = chance.choice(_STARTS)
    end = Calendar(start, "UTC", Interval.MONTH).boundary(months)
    parts = drawing_parts.Parts(seed)
    catalog = parts.catalog(assortment.drawn(chance))
    steps = [*_business(chance, start, end)]
    for number in range(1, customers + 1):
        steps += parts.life(_life(chance, f"c{number}", start, end), end)
    steps += parts.business(start, end)
    last = end + timedelta(days=2)
    steps += [Step(last, NOBODY, "run", {}), Step(last, NOBODY, "run", {})]
    script = Script(catalog, tuple(sorted(steps, key=lambda step: step.at)))
    return with_money(script, seed, start=start, end=end)


def _business(chance: Random, start: datetime, end: datetime) -> Iterator[Step]:
    """Yield the runs: often in some worlds, seldom in others, and now and then at odd times."""
    every = chance.choice((3.0, 8.0, 16.0, 33.0))
    at = start
    while at < end:
        at += timedelta(seconds=int(every * 86_400 * (_FIRST_HALF + chance.random())))
        if chance.random() < 0.1:
            at = at.replace(hour=1, minute=0, second=0)
        words = {"grace": "0"} if chance.random() < 0.2 else {}
        yield Step(at, NOBODY, "run", words)
        if chance.random() < 0.4:
            yield Step(at + timedelta(hours=2), NOBODY, "collect", {})


def _life(chance: Random, key: str, start: datetime, end: datetime) -> list[Step]:
    plans = assortment.YEN if chance.random() < 0.1 else _PLANS
    zone = chance.choice(_ZONES)
    joins = _joining(chance, start, end)
    person = _Person(key, plans, chance.choice(plans), zone, joins, joins)
    if chance.random() < 0.5:
        person.does("card", joins, token=chance.choice(_TOKENS))
    _sign_up(chance, person)
    at = person.at
    while True:
        at = _next(chance, person, at)
        if at >= end:
            break
        _act(chance, person, at)
    _usage(chance, person, end)
    person.steps.sort(key=lambda step: step.at)
    return person.steps


def _joining(chance: Random, start: datetime, end: datetime) -> datetime:
    """Return an instant in the first half, often one that makes a hard anchor."""
    half = (end - start).total_seconds() * _FIRST_HALF
    at = start + timedelta(seconds=int(chance.random() * half))
    kind = chance.random()
    if kind < 0.15:
        at = at.replace(day=28) + 3 * _DAY
        at = at - (at.day if at.day < 5 else 0) * _DAY
    elif kind < 0.3:
        at = at.replace(hour=0, minute=0, second=0)
    elif kind < 0.45:
        at = at.replace(hour=chance.choice((1, 2, 6, 7, 15)), minute=30, second=0)
    return max(at, start)


def _sign_up(chance: Random, person: _Person) -> None:
    words = {"plan": person.plan, "zone": person.zone}
    if person.plan == "team":
        person.seats = chance.randint(1, 5)
        words["seats"] = str(person.seats)
    kind = chance.random()
    person.anchor, person.state = person.at, "active"
    if kind < 0.15 and not any(step.verb == "subscribe" for step in person.steps):
        back = timedelta(days=chance.randint(1, 80), seconds=chance.randint(0, 80_000))
        person.anchor = person.at - back
        words["start"] = person.anchor.isoformat()
    elif kind < 0.35:
        days = chance.choice((7, 14, 30))
        policy = chance.choice(("activate", "pause", "fall_back"))
        fallback = {"fallback": "free"} if policy == "fall_back" else {}
        if fallback and person.plans is assortment.YEN:
            policy, fallback = "pause", {}
        words |= {"trial": str(days), "without": policy, **fallback}
        person.anchor, person.state = person.at + days * _DAY, "trialing"
    person.does("subscribe", person.at, **words)


def _next(chance: Random, person: _Person, at: datetime) -> datetime:
    """Return when someone acts next: soon, at the same instant, or on a boundary."""
    kind = chance.random()
    later = at + timedelta(seconds=1 + int(chance.expovariate(1 / (_ACTIONS_EVERY * 86_400))))
    if kind < 0.06:
        return at
    if kind < 0.16:
        months = Calendar(person.anchor, person.zone, Interval.MONTH)
        return months.boundary(max(1, months.number_at(max(later, person.anchor)) + 1))
    return later


def _act(chance: Random, person: _Person, at: datetime) -> None:
    person.at = at
    if chance.random() < 0.18:
        _about_money(chance, person, at)
        return
    if person.state == "canceled":
        if chance.random() < 0.5:
            person.plan = chance.choice(person.plans)
            _sign_up(chance, person)
        return
    if person.state == "paused":
        verb = chance.choice(("resume", "resume", "resume", "cancel"))
        person.does(verb, at, **({"at": "now"} if verb == "cancel" else {}))
        person.state = "active" if verb == "resume" else "canceled"
        return
    choices = ("change", "change", "change", "seats", "pause", "cancel", "end", "drop")
    getattr(_Doing, chance.choice(choices))(chance, person, at)


class _Doing:
    """What an active customer may do."""

    @staticmethod
    def change(chance: Random, person: _Person, at: datetime) -> None:
        others = [plan for plan in person.plans if plan != person.plan]
        if chance.random() < 0.7 and person.plan in assortment.LADDER:
            others = [plan for plan in assortment.LADDER if plan != person.plan]
        plan, when = chance.choice(others), chance.choice(("now", "now", "period_end"))
        words = {"plan": plan, "when": when}
        if plan == "team":
            person.seats = chance.randint(1, 6)
            words["seats"] = str(person.seats)
        person.does("change", at, **words)
        if when == "now":
            back = chance.random()
            if back < 0.12:
                seats = {"seats": str(person.seats)} if person.plan == "team" else {}
                person.does("change", at, plan=person.plan, when="now", **seats)
            else:
                person.plan = plan

    @staticmethod
    def seats(chance: Random, person: _Person, at: datetime) -> None:
        if person.plan != "team":
            _Doing.change(chance, person, at)
            return
        seats = chance.randint(1, 8)
        if seats != person.seats:
            words = {"when": chance.choice(("now", "period_end"))} if chance.random() < 0.5 else {}
            person.does("change", at, seats=str(seats), **words)
            person.seats = seats

    @staticmethod
    def pause(_: Random, person: _Person, at: datetime) -> None:
        person.does("pause", at)
        person.state = "paused"

    @staticmethod
    def cancel(chance: Random, person: _Person, at: datetime) -> None:
        person.does("cancel", at, at="now", credit=chance.choice(("yes", "no")))
        person.state = "canceled"

    @staticmethod
    def end(chance: Random, person: _Person, at: datetime) -> None:
        person.does("cancel", at, at="period_end")
        if chance.random() < 0.6:
            person.does("reactivate", at + timedelta(seconds=chance.randint(0, 400_000)))
        else:
            person.state = "canceled"

    @staticmethod
    def drop(_: Random, person: _Person, at: datetime) -> None:
        person.does("drop", at)


def _about_money(chance: Random, person: _Person, at: datetime) -> None:
    """Pay by bank transfer, or let the seller give something back."""
    kind, which = chance.random(), str(chance.randint(0, 5))
    if kind < 0.5:
        person.does("pay", at, invoice=which, part=chance.choice(("all", "all", "half", "more")))
    elif kind < 0.65:
        person.does("credit", at, invoice=which, kind=chance.choice(("correction", "concession")))
    elif kind < 0.8:
        kinds = chance.choice(("correction", "concession"))
        person.does("credit", at, invoice=which, kind=kinds, part="third")
    elif kind < 0.93:
        how = chance.choice(("reissue", "waive"))
        person.does("void_invoice", at, invoice=which, how=how)
    else:
        person.does("give_up", at, invoice=which)


def _usage(chance: Random, person: _Person, end: datetime) -> None:
    """Add events through the whole life, some of them late, corrected, or sent twice."""
    first = min(step.at for step in person.steps)
    at, number = min(first, person.anchor), 0
    pace = chance.choice((0.5, 1.0, 2.0)) * _EVENTS_EVERY
    while True:
        at += timedelta(seconds=1 + int(chance.expovariate(1 / (pace * 86_400))))
        if chance.random() < _ON_A_BOUNDARY:
            months = Calendar(person.anchor, person.zone, Interval.MONTH)
            at = months.boundary(max(1, months.number_at(max(at, person.anchor)) + 1))
        if at >= end:
            return
        number += 1
        name = f"{person.key}-{number}"
        late = chance.random() < 0.12
        sent = at + timedelta(seconds=chance.randint(1, 45 * 86_400)) if late else at
        sent = min(max(sent, first), end)
        person.does("use", sent, id=name, time=at.isoformat(), **_data(chance))
        if chance.random() < 0.08:
            after = timedelta(seconds=chance.randint(-40_000, 60 * 86_400))
            _corrected(chance, person, name, min(max(sent + after, first), end))
        if chance.random() < 0.05:
            again = min(sent + timedelta(seconds=chance.randint(0, 9 * 86_400)), end)
            original = next(s for s in reversed(person.steps) if s.words.get("id") == name)
            if original.verb == "use":
                person.does("use", again, **original.words)


def _data(chance: Random) -> dict[str, str]:
    data = {"quantity": chance.choice(_QUANTITIES)}
    if chance.random() < 0.25:
        data["gigabytes"] = chance.choice(("3", "5", "6", "12.5", "30"))
    if chance.random() < 0.25:
        data["spend"] = chance.choice(("10", "99.99", "1234.56", "0.01"))
    return data


def _corrected(chance: Random, person: _Person, name: str, at: datetime) -> None:
    if chance.random() < 0.5:
        person.does("void", at, id=name, fix=f"{name}-void")
    else:
        person.does("amend", at, id=name, fix=f"{name}-amend", **_data(chance))
