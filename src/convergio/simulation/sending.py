"""Send events to a server's `POST /v1/events`, waiting when it asks for that.

The key goes out over https only, or to this machine. A batch whose answer never came is sent
again: its events have their ids, so nothing counts twice.
"""

import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from convergio.infra.clock import pause
from convergio.infra.settings import Secret
from convergio.kernel.errors import (
    Forbidden,
    Invalid,
    LimitExceeded,
    Rejected,
    Unauthenticated,
    Unavailable,
)
from convergio.kernel.periods import instant_text
from convergio.metering.model import Event, Verdict

BATCH_SIZE: Final = 1_000
_TRIES: Final = 8
_WAIT_SECONDS_MAX: Final = 30
_TIMEOUT: Final = httpx.Timeout(60, connect=10)
_LATER: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_encode: Final = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """A verdict in the server's answer, with the event's place in the request."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    status: str
    reason: str | None = None
    field: str | None = None
    detail: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The server's answer: an entry for each event that was not accepted."""

    events: list[Entry]


_answer: Final = msgspec.json.Decoder(Answer)


class Server:
    """Count events on a server."""

    batch_size = BATCH_SIZE

    def __init__(
        self, url: str, key: Secret, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Prepare the connection. Raises: Invalid for a URL that is not https or this machine."""
        check_url(url)
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {key.reveal()}", "user-agent": "convergio-replay"},
            timeout=_TIMEOUT,
            transport=transport,
        )

    def __enter__(self) -> Self:
        """Open nothing yet: connections open on first use."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def count(self, events: Sequence[Event]) -> list[Verdict]:
        """Send a batch until it is answered. Raises: Rejected, Unavailable after some tries."""
        if not events:
            return []
        body = _encode([_document(event) for event in events])
        for number in range(1, _TRIES + 1):
            try:
                response = self._client.post(
                    "/v1/events",
                    content=body,
                    headers={"content-type": "application/cloudevents-batch+json"},
                )
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError) and number > 1:
                    break
                pause(0.5 * number)
                continue
            if response.status_code not in _LATER:
                return _verdicts(response, len(events))
            pause(_wait(response, number))
        raise Unavailable(
            "the server does not answer; is it running there? Run the same command again",
            code="no_server",
            field="--to",
        )


def check_url(url: str) -> None:
    """Refuse a URL over which a key must not travel. Raises: Invalid."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    known = parts.scheme in {"http", "https"} and host
    if not known or parts.query or parts.fragment or parts.username is not None:
        detail = "write the address of the server, such as https://billing.example.com"
        raise Invalid(detail, code="bad_url", field="--to")
    if parts.scheme == "http" and not _is_this_machine(host):
        detail = "the key would travel in the clear; use https (http only on this machine)"
        raise Invalid(detail, code="insecure_url", field="--to")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _document(event: Event) -> dict[str, Any]:
    """Return a CloudEvent in its JSON format."""
    document: dict[str, Any] = {
        "specversion": event.specversion,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "data": event.data or {},
    }
    if event.time is not None:
        document["time"] = instant_text(event.time)
    return document


def _wait(response: httpx.Response, number: int) -> float:
    asked = response.headers.get("retry-after", "")
    seconds = int(asked[:6]) if asked.isascii() and asked.isdigit() else 0
    return min(max(seconds, 0.5 * number), _WAIT_SECONDS_MAX)


def _verdicts(response: httpx.Response, count: int) -> list[Verdict]:
    """Return a verdict an event from the answer's entries. Raises: Rejected, Unavailable."""
    verdicts = [Verdict("accepted")] * count
    try:
        entries = _answer.decode(response.content).events
        for one in entries:
            verdicts[one.index] = Verdict(one.status, one.reason, one.field, one.detail)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        raise _refused(response.status_code) from None
    return verdicts


def _refused(status: int) -> Rejected | Unavailable:
    """Return the error for an answer that has no verdicts."""
    if status == HTTPStatus.UNAUTHORIZED:
        detail = "the server does not know the key; make one with `convergio apikey create`"
        return Unauthenticated(detail, code="bad_key", field="--key")
    if status == HTTPStatus.FORBIDDEN:
        detail = "the key needs the scope usage:write, and usage:import for old times"
        return Forbidden(detail, code="missing_scope", field="--key")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return LimitExceeded("the server takes no such large batch", code="too_large", field="--to")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = f"the server failed with status {status}; see its log, then run the same again"
        return Unavailable(detail, code="server_failed", field="--to")
    detail = f"what answers there with status {status} is not this product's API; check the address"
    return Invalid(detail, code="not_an_api", field="--to")
