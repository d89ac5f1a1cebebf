"""What the sync and the async client share: the key, the spool and how calls become requests.

Nothing here waits for the network. The key is kept out of every `repr` and log line.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlsplit

import httpx

from convergio_client import clock, protocol
from convergio_client.delivery import Delivery
from convergio_client.errors import Closed, Invalid
from convergio_client.flows import Patience
from convergio_client.model import Backlog, Event, OnRejected, Permit, Quantity
from convergio_client.protocol import Call, Reply, Silence
from convergio_client.spool import EVENT, Item, Spool

SOURCE: Final = "convergio-client"
TIMEOUT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 5.0


class Options(TypedDict, total=False):
    """What both clients take by keyword.

    `source` names the program in every event, `spool` is the file (or `Spool`) for durable
    tracking. `timeout_seconds` is for one request, `patience_seconds` for the pauses between
    repeated ones. `on_rejected` is told of what the server refused for good.
    """

    source: str
    spool: Spool | str | Path | None
    timeout_seconds: float
    patience_seconds: float
    on_rejected: OnRejected | None


class Engine:
    """The state of a client, sync or async."""

    def __init__(
        self,
        url: str,
        key: str,
        transport: httpx.BaseTransport | None,
        *,
        source: str = SOURCE,
        spool: Spool | str | Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        on_rejected: OnRejected | None = None,
    ) -> None:
        """Check the settings; `transport` carries what the spool sends."""
        self.url = _checked_url(url)
        self.source = _checked_source(source)
        self.patience = Patience(seconds_max=patience_seconds)
        self.timeout_seconds = timeout_seconds
        self._key = _checked_key(key)
        self._transport = transport
        self._clients: dict[int, httpx.Client] = {}
        self._closed = False
        self.spool = spool if isinstance(spool, Spool) or spool is None else Spool(spool)
        self.delivery = (
            None
            if self.spool is None
            else Delivery(self.spool, self.send, patience=self.patience, on_rejected=on_rejected)
        )
        if self.delivery is not None and self.spool is not None and self.spool.path.exists():
            self.delivery.wake()  # what an earlier process left behind

    def headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        return {"authorization": f"Bearer {self._key}", "content-type": "application/json"}

    def http(self) -> httpx.Client:
        """Return this process's connections: those of a parent are not ours after a fork."""
        process = os.getpid()
        found = self._clients.get(process)
        if found is None:
            if self._closed:
                raise Closed("the client was closed")
            made = httpx.Client(
                base_url=self.url,
                headers=self.headers(),
                timeout=self.timeout_seconds,
                transport=self._transport,
            )
            found = self._clients.setdefault(process, made)
            if found is not made:  # another thread was first
                made.close()
        return found

    def send(self, call: Call) -> Reply | Silence:
        """Make one request, blocking."""
        try:
            response = self.http().request(
                call.method,
                call.path,
                content=call.body,
                params=call.query or None,
                headers=call.headers,
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            return silence(error)
        return reply(response)

    def event(
        self,
        customer: str,
        type_: str,
        data: Mapping[str, object] | None,
        *,
        event_id: str | None,
        time: datetime | None,
    ) -> Item:
        """Return the event, with its id and time fixed now and for ever. Raises: Invalid."""
        now = clock.now()
        name = str(clock.new_id(now)) if event_id is None else event_id
        body = protocol.event(
            event_id=name,
            source=self.source,
            type_=type_,
            customer=customer,
            time=now if time is None else time,
            data=data,
        )
        return Item(EVENT, name, body)

    @staticmethod
    def new_id() -> str:
        """Return an id for an event or a question; it begins with the time."""
        return str(clock.new_id(clock.now()))

    def events(self, events: Iterable[Event]) -> list[Item]:
        """Return many events, each with its id and time fixed. Raises: Invalid."""
        return [
            self.event(one.customer, one.type, one.data, event_id=one.id, time=one.time)
            for one in events
        ]

    def correction(
        self,
        kind: str,
        customer: str,
        event_id: str,
        source: str | None,
        data: Mapping[str, object] | None,
    ) -> Item:
        """Return the event that corrects another one, by default one of this client's own.

        Raises: Invalid.
        """
        of: dict[str, object] = {"id": event_id, "source": source or self.source}
        if data is not None:
            of["data"] = dict(data)
        return self.event(customer, kind, of, event_id=None, time=None)

    def settlement(self, kind: str, permit: Permit, used: Quantity | None) -> Item:
        """Return the intent to commit or release a permit. Raises: Invalid."""
        actual = None
        if kind == "commit":
            actual = next((n for n in (used, permit.used) if n is not None), permit.quantity)
        return Item(kind, permit.reservation, protocol.settlement_body(permit.customer, actual))

    def keep(self, *items: Item) -> bool:
        """Store items durably, all or none, when there is a spool; False when there is none.

        Raises: SpoolFull, SpoolBroken, Closed.
        """
        if self.spool is None or self.delivery is None:
            return False
        self.spool.add(items)
        self.delivery.wake()
        return True

    def spooled(self) -> Spool:
        """Return the spool. Raises: Invalid when there is none."""
        if self.spool is None:
            raise Invalid("this client has no spool; give it one with spool='usage.spool'")
        return self.spool

    def backlog(self) -> Backlog:
        """Return what the spool holds. Raises: Invalid when there is none."""
        waiting, size, rejected = self.spooled().load()
        trouble = self.delivery.trouble if self.delivery else None
        return Backlog(waiting=waiting, size=size, rejected=rejected, trouble=trouble)

    def flush(self, seconds: float) -> bool:
        """Wait until the spool is empty, at most so long."""
        return True if self.delivery is None else self.delivery.flush(seconds)

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in time; the rest stays in the spool. Twice is once."""
        if self._closed:
            return
        ended = True
        if self.delivery is not None and self.spool is not None:
            if self.spool.path.exists():
                self.delivery.flush(seconds)
            ended = self.delivery.stop(self.timeout_seconds)
            self.spool.close()
        self._closed = True
        found = self._clients.pop(os.getpid(), None)
        if found is not None and ended:
            found.close()


def reply(response: httpx.Response) -> Reply:
    """Return what a flow wants to know of a response."""
    asked = protocol.retry_after(response.headers.get("retry-after"), clock.now())
    return Reply(response.status_code, response.content, asked)


def silence(error: Exception) -> Silence:
    """Return a failed request as a value; the error's text never holds the key."""
    return Silence(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid("the url is http(s)://host[:port][/path]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Invalid("the url holds no user, query or fragment; the key goes into `key`")
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid("the key is the text that `convergio apikey create` printed")
    return key


def _checked_source(source: str) -> str:
    if not 0 < len(source) <= protocol.TEXT_SIZE_MAX or "\0" in source:
        raise Invalid(f"the source is text of 1 to {protocol.TEXT_SIZE_MAX} characters")
    return source
