"""Read the events of a request: one or many, each on its own when the whole does not fit.

The whole body is decoded at once; only when that fails is each event decoded alone, so that one
bad event gets its verdict and never sinks its batch.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from convergio.kernel.errors import Invalid, LimitExceeded
from convergio.metering.model import BATCH_MAX, Event, Verdict

_many: Final = msgspec.json.Decoder(list[Event], float_hook=Decimal)
_one: Final = msgspec.json.Decoder(Event, float_hook=Decimal)
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw])
_WHERE: Final = re.compile(r" - at `\$\.?(?:\[\.\.\.\]\.?)?([^`]*)`")


@dataclass(slots=True)
class Reading:
    """Events that can be decided, their places in the request, and verdicts on the others."""

    events: list[Event]
    places: list[int]
    verdicts: list[Verdict | None]
    single: bool

    def keep_only(self, customer_key: str) -> None:
        """Refuse events of any customer but one."""
        detail = "no customer has this key; create the customer first"
        refused = Verdict("rejected", "unknown_customer", "subject", detail)
        kept = []
        for event, place in zip(self.events, self.places, strict=True):
            if event.subject == customer_key:
                kept.append((event, place))
            else:
                self.verdicts[place] = refused
        self.events = [event for event, _ in kept]
        self.places = [place for _, place in kept]


def read_events(body: bytes) -> Reading:
    """Decode one event or a list of them. Raises: Invalid for anything else, LimitExceeded."""
    single = body.lstrip()[:1] != b"["
    try:
        events = [_one.decode(body)] if single else _many.decode(body)
    except msgspec.ValidationError:
        return _one_by_one(body, single=single)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("the body is not well-formed JSON; mend it", code="malformed") from None
    _check_size(len(events))
    return Reading(events, list(range(len(events))), [None] * len(events), single)


def _one_by_one(body: bytes, *, single: bool) -> Reading:
    try:
        parts = [msgspec.Raw(body)] if single else _parts.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("the body is not well-formed JSON; mend it", code="malformed") from None
    _check_size(len(parts))
    reading = Reading([], [], [None] * len(parts), single)
    for place, part in enumerate(parts):
        try:
            reading.events.append(_one.decode(part))
            reading.places.append(place)
        except msgspec.ValidationError as error:
            found = _WHERE.search(str(error))
            text = _WHERE.sub("", str(error))
            field = found[1] if found else None
            reading.verdicts[place] = Verdict("rejected", "bad_event", field, text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            detail = "the event is not well-formed JSON"
            reading.verdicts[place] = Verdict("rejected", "malformed", None, detail)
    return reading


def _check_size(count: int) -> None:
    if not count:
        raise Invalid("send at least one event", code="empty_batch")
    if count > BATCH_MAX:
        detail = f"send at most {BATCH_MAX} events a request; split the batch"
        raise LimitExceeded(detail, code="batch_too_large")
