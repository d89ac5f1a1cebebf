"""What the bench measures with: events as skewed as real traffic, evenly spread ones, and requests.

The skew is the one of the GenTD26 trace: read from the file where it lies, otherwise drawn from a
power law that was fitted to it (one customer in 4,247 makes 5 % of all events, 400 make 56 %).
Everything is seeded. Pure but for reading the file.
"""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from convergio.metering.model import Event

TRACE: Final = Path("../shared/data/gentd26_lora_request_trace.csv.gz")
SKEWED_CUSTOMERS: Final = 4_247
SKEWED_EVENTS: Final = 26_823
_EXPONENT: Final = 0.8
_FAILED: Final = 431 / 26_823
_SEED: Final = 20_241_101
START: Final = datetime(2024, 11, 1, tzinfo=UTC)
_SPAN: Final = timedelta(days=60)
_FORM: Final = "%Y-%m-%d %H:%M:%S"

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Usage:
    """What happened, before it has the id that makes it an event."""

    subject: str
    time: datetime
    data: dict[str, Any]


def skewed(trace: Path = TRACE) -> tuple[list[Usage], str]:
    """Return usage with the trace's skew, and where it is from."""
    if trace.is_file():
        return list(_read(trace)), f"the trace {trace.name}"
    chance = Random(_SEED)
    weights = [1 / (rank + 1) ** _EXPONENT for rank in range(SKEWED_CUSTOMERS)]
    ranks = chance.choices(range(SKEWED_CUSTOMERS), weights, k=SKEWED_EVENTS)
    return [_drawn(chance, f"G{rank:04d}") for rank in ranks], "a synthetic trace of its skew"


def uniform(customers: int, events: int) -> list[Usage]:
    """Return usage in which every customer has the same share."""
    chance = Random(_SEED)
    keys = uniform_keys(customers)
    return [_drawn(chance, keys[place % customers]) for place in range(events)]


def uniform_keys(customers: int) -> list[str]:
    """Return the keys of the evenly used customers."""
    return [f"uniform-{place:06d}" for place in range(customers)]


def _read(trace: Path) -> Iterator[Usage]:
    with gzip.open(trace) as packed:
        for row in csv.DictReader(io.TextIOWrapper(packed, "utf-8")):
            status = "succeeded" if row["predict_status"] == "SUCCEED" else "failed"
            moment = datetime.strptime(row["gmt_create"], _FORM).replace(tzinfo=UTC)
            yield Usage(row["groupId"], moment, {"status": status})


def _drawn(chance: Random, key: str) -> Usage:
    status = "failed" if chance.random() < _FAILED else "succeeded"
    moment = START + timedelta(seconds=chance.randrange(int(_SPAN.total_seconds())))
    return Usage(key, moment, {"status": status})


def events(usage: Sequence[Usage], tag: str) -> list[Event]:
    """Return usage as events that are new: `tag` makes their ids."""
    return [
        Event(
            id=f"{tag}-{place}",
            source="bench",
            type="ai.request",
            subject=one.subject,
            time=one.time,
            data=one.data,
        )
        for place, one in enumerate(usage)
    ]


def bodies(made: Sequence[Event], size: int) -> list[bytes]:
    """Return request bodies of `size` events each; of single events for size 1."""
    if size == 1:
        return [_encode(event) for event in made]
    return [_encode(made[at : at + size]) for at in range(0, len(made), size)]


def questions(usage: Sequence[Usage]) -> list[bytes]:
    """Return a body of `POST /v1/authorize` for each."""
    return [_encode({"customer": one.subject, "meter": "questions"}) for one in usage]
