"""Requests out of values and values out of replies: the whole wire format, without any I/O.

The sync and the async client, and the thread that empties the spool, all speak through this
module, so that they cannot disagree.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from convergio_client.clock import text as instant_text
from convergio_client.errors import (
    DENIALS,
    ClientError,
    Denied,
    Invalid,
    Rejected,
    Unauthorized,
    Unavailable,
)
from convergio_client.model import Permit, Quantity, Quota, Usage, Verdict

BATCH_ROWS_MAX: Final = 1_000
BATCH_SIZE_MAX: Final = 4 * 1024 * 1024
EVENT_SIZE_MAX: Final = 256 * 1024
GZIP_SIZE_MIN: Final = 64 * 1024
TEXT_SIZE_MAX: Final = 255
ASK_ID_SIZE_MAX: Final = 128
_TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_QUANTITY: Final = re.compile(r"(0|[1-9][0-9]{0,28})(\.[0-9]{1,9})?", re.ASCII)
_OK: Final = 200
_MULTIPLE: Final = 300
_CLIENT_ERROR: Final = 400


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the server."""

    method: str
    path: str
    body: bytes | None = None
    query: tuple[tuple[str, str], ...] = ()
    encoding: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that this request has beside those of every one."""
        return {} if self.encoding is None else {"content-encoding": self.encoding}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server."""

    status: int
    body: bytes
    retry_after_seconds: float | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The body's JSON object; empty when it is not one (a proxy answered)."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer came; whether the server did the work is not known."""

    why: str


def is_temporary(reply: Reply) -> bool:
    """Say whether the same request may succeed later; a denial with 429 is an answer."""
    return reply.status in _TEMPORARY and "allowed" not in reply.document


def retry_after(header: str | None, now: datetime) -> float | None:
    """Read Retry-After (RFC 9110): seconds or a date. None when there is none that reads."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header.strip(), re.ASCII):
        return float(header)
    try:
        found = parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def quantity_text(quantity: Quantity) -> str:
    """Return the decimal text of a quantity. Raises: Invalid for floats, negatives, NaN."""
    if isinstance(quantity, bool | float) or not isinstance(quantity, int | str | Decimal):
        raise Invalid(f"a quantity is an int, a Decimal or text, not {type(quantity).__name__}")
    written = format(quantity, "f") if isinstance(quantity, Decimal) else str(quantity)
    if "." in written and isinstance(quantity, Decimal):
        written = written.rstrip("0").rstrip(".")
    if not _QUANTITY.fullmatch(written):
        raise Invalid(f"'{written[:60]}' is no quantity: not negative, at most 9 decimals")
    return written


def event(
    *,
    event_id: str,
    source: str,
    type_: str,
    customer: str,
    time: datetime,
    data: Mapping[str, object] | None,
) -> bytes:
    """Return a CloudEvents 1.0 event as JSON. Raises: Invalid."""
    for name, value in (("id", event_id), ("type", type_), ("customer", customer)):
        if not isinstance(value, str) or not 0 < len(value) <= TEXT_SIZE_MAX or "\0" in value:
            raise Invalid(f"{name} is text of 1 to {TEXT_SIZE_MAX} characters without NUL")
    if time.tzinfo is None:
        raise Invalid("time needs its zone, as in datetime(..., tzinfo=UTC)")
    fields = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": type_,
        "subject": customer,
        "time": instant_text(time),
        "data": dict(data or {}),
    }
    body = _encoded(fields)
    if len(body) > EVENT_SIZE_MAX:
        raise Invalid(f"an event has at most {EVENT_SIZE_MAX} bytes; this one has {len(body)}")
    return body


def ingest(events: Sequence[bytes]) -> Call:
    """Send events that `event` made; a large batch is packed, for it is mostly repetition."""
    body = b"[" + b",".join(events) + b"]"
    if len(body) < GZIP_SIZE_MIN:
        return Call("POST", "/v1/events", body)
    packed = gzip.compress(body, compresslevel=1, mtime=0)
    return Call("POST", "/v1/events", packed, encoding="gzip")


def batches(events: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield events in order, in batches that fit into a request."""
    begin = size = 0
    for place, body in enumerate(events):
        if place - begin == BATCH_ROWS_MAX or (place > begin and size + len(body) > BATCH_SIZE_MAX):
            yield events[begin:place]
            begin, size = place, 0
        size += len(body)
    if begin < len(events):
        yield events[begin:]


def verdicts(reply: Reply, count: int) -> list[Verdict] | None:
    """Return what became of each of `count` events; None when the reply is about none of them.

    Raises: Unavailable when the reply speaks of events but its numbers do not add up.
    """
    found = reply.document
    if "events" not in found and "accepted" not in found:
        return None
    others = found.get("events", [])
    told = [Verdict("accepted")] * count
    try:
        for other in others:
            told[other["index"]] = Verdict(
                other["status"], other.get("reason", ""), other.get("field"),
                other.get("detail", ""),
            )  # fmt: skip
        said = [found[name] for name in ("accepted", "duplicate", "conflict", "rejected")]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unavailable("the server's report on the events does not read") from None
    counted = [sum(one.status == name for one in told) for name in (
        "accepted", "duplicate", "conflict", "rejected"
    )]  # fmt: skip
    if counted != said:
        raise Unavailable(f"the server reported on {said} events, {count} were sent")
    return told


def authorize(customer: str, meter: str, quantity: Quantity, ask_id: str) -> Call:
    """Ask the server to hold a quantity, once however often the same id asks. Raises: Invalid."""
    if not 0 < len(ask_id) <= ASK_ID_SIZE_MAX or "\0" in ask_id:
        raise Invalid(f"the id of an ask is text of 1 to {ASK_ID_SIZE_MAX} characters without NUL")
    asked = quantity_text(quantity)
    body = {"customer": customer, "meter": meter, "quantity": asked, "id": ask_id}
    return Call("POST", "/v1/authorize", _encoded(body))


def permit(reply: Reply, customer: str, meter: str, quantity: Quantity) -> Permit:
    """Return the permit. Raises: Denied, Rejected."""
    found = reply.document
    if found.get("allowed") is False:
        raise denied(reply)
    raise_for(reply)
    with _reading():
        return Permit(
            customer=customer,
            meter=meter,
            quantity=Decimal(quantity_text(quantity)),
            reservation=str(found["reservation"]),
            expires_at=datetime.fromisoformat(found["expires_at"]),
        )


def denied(reply: Reply) -> Denied:
    """Return the denial that a reply is."""
    found = reply.document
    reason = str(found.get("reason") or found.get("code") or "denied")
    resets_at = found.get("resets_at")
    return DENIALS.get(reason, Denied)(
        reason,
        str(found.get("detail") or ""),
        status=reply.status,
        resets_at=datetime.fromisoformat(resets_at) if isinstance(resets_at, str) else None,
        retry_after_seconds=reply.retry_after_seconds,
    )


def settlement_body(customer: str, used: Quantity | None) -> bytes:
    """Return the body of a commit (None: all that was held) or, with None, of a release."""
    actual = {} if used is None else {"actual": quantity_text(used)}
    return _encoded({"customer": customer, **actual})


def settle(kind: str, reservation: str, body: bytes) -> Call:
    """Commit or release a reservation."""
    return Call("POST", f"/v1/reservations/{quote(reservation, safe='')}/{kind}", body)


def ask_quota(customer: str, meter: str) -> Call:
    """Ask for a quota."""
    return Call("GET", "/v1/quota", query=(("customer", customer), ("meter", meter)))


def quota(reply: Reply) -> Quota:
    """Return the quota. Raises: Rejected."""
    raise_for(reply)
    found = reply.document
    with _reading():
        return Quota(
            customer=found["customer"],
            meter=found["meter"],
            limit=_decimal(found.get("limit")),
            included=_decimal(found.get("included")),
            used=Decimal(found["used"]),
            reserved=Decimal(found["reserved"]),
            remaining=_decimal(found.get("remaining")),
            resets_at=datetime.fromisoformat(found["resets_at"]),
            access=found["access"],
        )


def ask_usage(
    meter: str,
    *,
    customer: str | None,
    by: str,
    start: datetime | None,
    end: datetime | None,
    time_zone: str,
    by_group: bool = False,
) -> Call:
    """Ask for usage in buckets of local time. Raises: Invalid for an instant without zone."""
    query = [("meter", meter), ("by", by), ("time_zone", time_zone)]
    if customer is not None:
        query.append(("customer", customer))
    if by_group:
        query.append(("by_group", "true"))
    for name, instant in (("from", start), ("to", end)):
        if instant is not None and instant.tzinfo is None:
            raise Invalid(f"{name} needs its zone, as in datetime(..., tzinfo=UTC)")
        if instant is not None:
            query.append((name, instant_text(instant)))
    return Call("GET", "/v1/usage", query=tuple(query))


def usage(reply: Reply) -> list[Usage]:
    """Return the buckets in order of time. Raises: Rejected."""
    raise_for(reply)
    with _reading():
        return [
            Usage(
                start=datetime.fromisoformat(row["start"]),
                quantity=Decimal(row["quantity"]),
                events=int(row["events"]),
                group=tuple(json.loads(row.get("group", "[]"))),
            )
            for row in reply.document["usage"]
        ]


def failure(reply: Reply) -> ClientError | None:
    """Return what a reply that is no success says is wrong."""
    if _OK <= reply.status < _MULTIPLE:
        return None
    found = reply.document
    code = str(found.get("code") or f"http_{reply.status}")
    detail = str(found.get("detail") or found.get("title") or "")
    if reply.status < _CLIENT_ERROR:
        detail = "the server redirects; give the client the address that it redirects to"
    kind = Unauthorized if reply.status in {401, 403} else Rejected
    field = found.get("field")
    return kind(code, detail, status=reply.status, field=field if isinstance(field, str) else None)


def raise_for(reply: Reply) -> None:
    """Raise what a reply that is no success says is wrong."""
    found = failure(reply)
    if found is not None:
        raise found


@contextmanager
def _reading() -> Iterator[None]:
    """Turn an answer that is not of our server (a proxy's page, say) into one that may be retried.

    Raises: Unavailable.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, InvalidOperation):
        raise Unavailable("the answer does not read as one of Convergio's") from None


def _encoded(value: object) -> bytes:
    try:
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"data must be JSON: {error}") from None


def _plain(value: object) -> str:
    """Write exact numbers, instants and ids as text: the server reads them back exactly."""
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))
