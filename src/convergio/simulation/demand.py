"""What people do in a day: requests to the product, and what goes wrong on their way to the meter.

Skewed as real usage is: most ask little, few ask for most of it, weekends are quiet. A network
delivers twice, late, and now and then nonsense. Pure: the same chance gives the same day.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import exp
from random import Random
from typing import Final, NamedTuple

from convergio.kernel.periods import Period
from convergio.metering.model import Event
from convergio.simulation.people import Person

SOURCE: Final = "https://chat.example/api"
TYPE: Final = "ai.request"
_WEEK: Final = (1.15, 1.2, 1.2, 1.15, 1.1, 0.6, 0.6)
_DAY_SECONDS: Final = 86_400
_DAYS_A_MONTH: Final = 30
_BULK_MEAN: Final = 150
_SESSION_MEAN: Final = 8
_POISSON_MAX: Final = 30.0
_COMES: Final = 0.25
_FAILED: Final = 0.03
_WITH_IMAGES: Final = 0.08
_FORGOTTEN: Final = 0.02
_RELEASED: Final = 0.03
_SPOILT: Final = 0.15
_MODELS: Final = ("chat-small", "chat-small", "chat-small", "chat-large")


class Session(NamedTuple):
    """Someone asks for so many questions and uses so many: None is never heard of again."""

    at: datetime
    customer_key: str
    wanted: int
    used: int | None


def questions(chance: Random, person: Person, active: Period) -> int:
    """Return how many questions someone asks in the part of a day in which they are there."""
    share = active.seconds / _DAY_SECONDS * _WEEK[active.start.weekday()]
    return _about(chance, person.questions / _DAYS_A_MONTH * share)


def events(chance: Random, person: Person, active: Period) -> list[Event]:
    """Return a day's requests; a large customer reports many questions in one event."""
    asked = questions(chance, person, active)
    bulk = person.plan == "enterprise"
    count = max(1, asked // _BULK_MEAN) if bulk and asked else asked
    return [
        _event(chance, person.key, at, _about(chance, asked / count) if bulk else None)
        for at in _moments(chance, active, count)
    ]


def sessions(chance: Random, person: Person, active: Period) -> list[Session]:
    """Return a day's sessions of someone whose requests are authorised one session at a time.

    They come on some days only, and ask for more then.
    """
    if chance.random() >= _COMES:
        return []
    left, found = round(questions(chance, person, active) / _COMES), []
    for at in _moments(chance, active, 1 + left // _SESSION_MEAN if left else 0):
        wanted = min(left, 1 + int(chance.random() * 2 * _SESSION_MEAN))
        if not wanted:
            break
        left -= wanted
        fate = chance.random()
        used = None if fate < _FORGOTTEN else 0 if fate < _FORGOTTEN + _RELEASED else wanted
        found.append(Session(at, person.key, wanted, used))
    return found


def spoilt(chance: Random, batch: Sequence[Event]) -> list[Event]:
    """Return the batch as a careless client sends it: now and then with a wrong event."""
    if not batch or chance.random() >= _SPOILT:
        return list(batch)
    one = chance.choice(batch)
    wrong = chance.choice(("type", "quantity", "customer", "payload"))
    changed = Event(
        id=one.id if wrong == "payload" else f"{one.id}-{wrong}",
        source=one.source,
        type="ai.unknown" if wrong == "type" else one.type,
        subject="nobody" if wrong == "customer" else one.subject,
        time=one.time,
        data={
            **(one.data or {}),
            "status": "succeed",
            "quantity": -1 if wrong == "quantity" else 2,
        },
    )
    return [*batch, changed]


def _event(chance: Random, key: str, at: datetime, quantity: int | None) -> Event:
    data: dict[str, object] = {
        "status": "failed" if chance.random() < _FAILED else "succeed",
        "model": _MODELS[int(chance.random() * len(_MODELS))],
        "tokens_in": 20 + int(chance.random() * 2_000),
        "tokens_out": 50 + int(chance.random() * 900),
    }
    if quantity is not None:
        data["quantity"] = max(1, quantity)
    elif chance.random() < _WITH_IMAGES:
        data["images"] = 1 + int(chance.random() * 4)
    event_id = f"req_{chance.getrandbits(80):020x}"
    return Event(id=event_id, source=SOURCE, type=TYPE, subject=key, time=at, data=data)


def _moments(chance: Random, active: Period, count: int) -> list[datetime]:
    """Return distinct-looking instants of the active time, in order."""
    length = active.seconds
    seconds = sorted(int(chance.random() * length) for _ in range(count))
    return [active.start + timedelta(seconds=second) for second in seconds]


def _about(chance: Random, mean: float) -> int:
    """Return a whole number around a mean: Poisson where it is small, Gauss where it is not."""
    if mean > _POISSON_MAX:
        return max(0, round(chance.gauss(mean, mean**0.5 * 2)))
    count, product, floor = 0, chance.random(), exp(-mean)
    while product > floor:
        count += 1
        product *= chance.random()
    return count
