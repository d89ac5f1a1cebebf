"""Read the events of a request: one or many, each on its own when the whole does not fit.

The whole body is decoded at once; only when that fails is each event decoded alone, so that one
bad event gets its verdict and never sinks its batch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from convergio.kernel.errors import Invalid, LimitExceeded
from convergio.metering.model import BATCH_MAX, CORRECTIONS, OWN_SOURCES, Event, Verdict


class _Time(msgspec.Struct):
    """An event's time as it was written."""

    time: str | None = None


_many: Final = msgspec.json.Decoder(list[Event], float_hook=Decimal)
_one: Final = msgspec.json.Decoder(Event, float_hook=Decimal)
_times: Final = msgspec.json.Decoder(list[_Time])
_time: Final = msgspec.json.Decoder(_Time)
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw])
_any: Final = msgspec.json.Decoder(float_hook=Decimal)
_encode: Final = msgspec.json.Encoder().encode
_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time")
_JSON_MEDIA: Final = re.compile(rb"(application|text)/([\w.+-]+\+)?json", re.ASCII)
_FINE: Final = re.compile(rb"\.[0-9]{7}")
_FINE_TEXT: Final = re.compile(r"(\.[0-9]{6})[0-9]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_MALFORMED: Final = "the body is not well-formed JSON; mend it"
_WHERE: Final = re.compile(r" - at `\$\.?(?:\[\.\.\.\]\.?)?([^`]*)`")


class _Packed(msgspec.Struct):
    """An event whose data is not JSON (CloudEvents JSON format 1.0.2, 3.1.1)."""

    data_base64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_packed: Final = msgspec.json.Decoder(_Packed)
_BASE64: Final = b'"data_base64"'


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
        self._keep(lambda event: event.subject == customer_key, refused)

    def refuse_corrections(self) -> None:
        """Refuse to void or amend."""
        if CORRECTIONS.isdisjoint({event.type for event in self.events}):
            return
        detail = "this key lacks the scope usage:correct; create one that has it"
        refused = Verdict("rejected", "scope_missing", "type", detail)
        self._keep(lambda event: event.type not in CORRECTIONS, refused)

    def settle(self, verdicts: list[Verdict]) -> None:
        """Put the verdicts on the events in their places."""
        if len(verdicts) == len(self.verdicts):
            self.verdicts[:] = verdicts
            return
        for place, verdict in zip(self.places, verdicts, strict=True):
            self.verdicts[place] = verdict

    def _keep(self, passes: Callable[[Event], bool], refused: Verdict) -> None:
        kept = []
        for event, place in zip(self.events, self.places, strict=True):
            if passes(event):
                kept.append((event, place))
            else:
                self.verdicts[place] = refused
        self.events = [event for event, _ in kept]
        self.places = [place for _, place in kept]


def read_events(body: bytes) -> Reading:
    """Decode one event or a list of them. Raises: Invalid for anything else, LimitExceeded."""
    single = not body.startswith(b"[") and body.lstrip()[:1] != b"["
    try:
        events = [_one.decode(body)] if single else _many.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if single and not isinstance(error, msgspec.ValidationError):
            raise Invalid(_MALFORMED, code="malformed") from None
        return _one_by_one(body, single=single)
    _check_size(len(events))
    if _may_be_fine(body):
        written = [_time.decode(body)] if single else _times.decode(body)
        events = [_cut(event, one.time) for event, one in zip(events, written, strict=True)]
    own = any(source.startswith(OWN_SOURCES) for source in {event.source for event in events})
    if own or _BASE64 in body:
        return _one_by_one(body, single=single)
    return Reading(events, list(range(len(events))), [None] * len(events), single)


def _may_be_fine(body: bytes) -> bool:
    """Say whether a fraction may be in it that is finer than microseconds, perhaps in escapes."""
    return _FINE.search(body) is not None or b"\\u" in body


def _cut(event: Event, written: str | None) -> Event:
    """Cut what is finer than a microsecond: the decoder rounds it, perhaps into the next period."""
    if written is None or _FINE_TEXT.search(written) is None:
        return event
    time = msgspec.convert(_FINE_TEXT.sub(r"\1", written), datetime)
    return msgspec.structs.replace(event, time=time)


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Say whether a request is in binary mode: the event's attributes are its headers.

    Source: CloudEvents HTTP protocol binding 1.0.2, 3 (how a receiver tells the modes apart).
    """
    media = headers.get(b"content-type", b"").strip().lower()
    return b"ce-specversion" in headers and not media.startswith(b"application/cloudevents")


def read_binary(headers: Mapping[bytes, bytes], body: bytes) -> Reading:
    """Decode an event whose attributes are headers and whose JSON data is the body.

    Source: CloudEvents HTTP protocol binding 1.0.2, 3.1. Raises: Invalid.
    """
    media = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if not _JSON_MEDIA.fullmatch(media):
        raise Invalid("an event's data is JSON", code="unsupported_media_type")
    event: dict[str, Any] = {}
    try:
        for name in _ATTRIBUTES:
            value = headers.get(b"ce-" + name.encode())
            if value is not None:
                event[name] = _attribute(value)
        if body.strip():
            _any.decode(body)  # one JSON value and nothing beside it: it goes in as it is
            event["data"] = msgspec.Raw(body)
        whole = _encode(event)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Invalid(_MALFORMED, code="malformed") from None
    return read_events(whole)


def _attribute(value: bytes) -> str:
    """Read a header's value: perhaps quoted (RFC 9110, 5.6.4), then percent-encoded UTF-8."""
    text = value.decode("utf-8").strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    return unquote(text, errors="strict")


def _one_by_one(body: bytes, *, single: bool) -> Reading:
    try:
        parts = [msgspec.Raw(body)] if single else _parts.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(_MALFORMED, code="malformed") from None
    _check_size(len(parts))
    reading = Reading([], [], [None] * len(parts), single)
    for place, part in enumerate(parts):
        try:
            event = _cut(_one.decode(part), _time.decode(part).time)
            if event.source.startswith(OWN_SOURCES):
                detail = f"sources that begin with {OWN_SOURCES} are the product's own"
                reading.verdicts[place] = Verdict("rejected", "bad_id", "source", detail)
                continue
            if _BASE64 in bytes(part) and _packed.decode(part).data_base64 is not msgspec.UNSET:
                detail = "send the properties as JSON in `data`; data_base64 is not read"
                reading.verdicts[place] = Verdict("rejected", "bad_event", "data_base64", detail)
                continue
            reading.events.append(event)
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
