"""The outermost layer: events and authorize without a framework, security headers on everything.

These two routes take nearly all requests, so they parse, authorise and hand over to a Batcher
with nothing in between. Their twins in `routes.py` exist for the OpenAPI document only.
"""

import zlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from math import ceil
from typing import Any, Final

import msgspec
from litestar.types import ASGIApp, Message, Receive, Send
from litestar.types import Scope as AsgiScope

from convergio.api import problems
from convergio.api.security import authenticated, bound_key, require_scope
from convergio.entitlements.model import Allowed, Ask, Decision, Denied, Reason
from convergio.identity.model import Scope
from convergio.infra import ids, log
from convergio.infra.batcher import Batcher
from convergio.kernel.errors import ConvergioError, Invalid, LimitExceeded
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import parse_quantity
from convergio.metering.model import BATCH_MAX, Event, Verdict
from convergio.metering.reading import Reading, is_binary, read_binary, read_events
from convergio.metering.rules import QUANTITY_MAX
from convergio.wiring import App

BODY_SIZE_MAX: Final = 8 * 1024 * 1024
_GZIP_MEMBERS_MAX: Final = 64
_JSON: Final = b"application/json"
_EVENT_TYPES: Final = frozenset(
    {_JSON, b"application/cloudevents+json", b"application/cloudevents-batch+json"}
)
SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
    (b"x-content-type-options", b"nosniff"),
)
DENIAL_STATUS: Final = {
    Reason.LIMIT_REACHED: 429,
    Reason.SUSPENDED: 403,
    Reason.NO_SUBSCRIPTION: 403,
    Reason.SPEND_CAP: 402,
    Reason.UNKNOWN_CUSTOMER: 404,
    Reason.UNKNOWN_METER: 404,
}
_DENIALS: Final = {
    Reason.LIMIT_REACHED: "the plan's limit for this period is reached; a larger plan has more",
    Reason.SUSPENDED: "access is suspended until open invoices are paid",
    Reason.NO_SUBSCRIPTION: "the customer has no live subscription; subscribe first",
    Reason.SPEND_CAP: "the spend cap for this period is reached; raise it or take it away",
    Reason.UNKNOWN_CUSTOMER: "there is no customer with this key",
    Reason.UNKNOWN_METER: "there is no meter with this key; see `convergio catalog show`",
}
_log = log.logger("api")
_ERROR: Final = 400
_FAULT: Final = 500
_encode: Final = msgspec.json.Encoder().encode


class AskBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask whether a customer may use so much of a meter now: the body of `POST /v1/authorize`."""

    customer: str
    meter: str
    quantity: str = "1"


_ask: Final = msgspec.json.Decoder(AskBody)
Answer = tuple[int, bytes, bytes, dict[str, str]]


class HotPath:
    """An ASGI layer around the rest of the API."""

    def __init__(self, product: App, inner: ASGIApp) -> None:
        """Start the two batchers of this process."""
        settings = product.settings
        self._product = product
        self._inner = inner
        self._events: Batcher[tuple[Event, bool], Verdict] = Batcher(
            self._count,
            batch_max=settings.ingest_batch_max,
            queue_max=settings.ingest_queue_max,
            name="ingest",
        )
        self._asks: Batcher[Ask, Decision] = Batcher(
            self._decide, batch_max=500, queue_max=5_000, name="authorize"
        )

    def close(self) -> None:
        """Work off what is queued."""
        self._events.close()
        self._asks.close()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve a hot route here, anything else inside."""
        request: dict[str, Any] = {**scope}
        if request["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path, method = request["path"], request["method"]
        if method == "POST" and path == "/v1/events":
            await self._answer(scope, receive, send, self._ingest)
        elif method == "POST" and path == "/api/v1/events":
            await self._answer(scope, receive, send, self._ingest_for_openmeter)
        elif method == "POST" and path == "/v1/authorize":
            await self._answer(scope, receive, send, self._authorize)
        elif path == "/healthz":
            await _send(send, 200, _JSON, b'{"status":"ok"}')
        else:
            await self._inner(scope, receive, partial(_with_headers, send))

    async def _answer(
        self,
        scope: AsgiScope,
        receive: Receive,
        send: Send,
        work: Callable[[dict[bytes, bytes], Receive], Awaitable[Answer]],
    ) -> None:
        try:
            status, kind, body, extra = await work(dict(scope["headers"]), receive)
        except Exception as error:  # noqa: BLE001 - the edge answers everything, and logs faults
            found = problems.of(error)
            if not isinstance(error, ConvergioError) and found.status >= _FAULT:
                _log.error("fault", error=type(error).__name__, exc_info=error)
            status, kind = found.status, problems.MEDIA_TYPE.encode()
            body, extra = problems.body(found), problems.headers(found)
        await _send(send, status, kind, body, extra)

    async def _ingest(self, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        batch = await self._decided(headers, receive)
        return _report(batch.verdicts, single=batch.single)

    async def _ingest_for_openmeter(self, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        """Answer as OpenMeter's clients expect: 204 when all is counted, else an error.

        The whole batch may then be sent again: what is counted already stays counted once.
        """
        batch = await self._decided(headers, receive)
        if all(one and one.status in {"accepted", "duplicate"} for one in batch.verdicts):
            return 204, b"", b"", {}
        return _report(batch.verdicts, single=batch.single, whole=True)

    async def _decided(self, headers: dict[bytes, bytes], receive: Receive) -> Reading:
        principal = await authenticated(self._product, _text(headers.get(b"authorization")))
        require_scope(principal, Scope.USAGE_WRITE)
        media = headers.get(b"content-type", _JSON).partition(b";")[0].strip().lower()
        binary = is_binary(headers)
        if not binary and media not in _EVENT_TYPES:
            raise Invalid("send application/json", code="unsupported_media_type")
        body = await _body(headers, receive)
        batch = read_binary(headers, body) if binary else read_events(body)
        only = await bound_key(self._product, principal)
        importing = bool({Scope.USAGE_IMPORT, Scope.ADMIN} & principal.scopes)
        if not {Scope.USAGE_CORRECT, Scope.ADMIN} & principal.scopes:
            batch.refuse_corrections()
        verdicts = batch.verdicts
        if only is not None:
            batch.keep_only(only)
        if batch.events:
            found_all = await self._events.submit([(event, importing) for event in batch.events])
            for place, verdict in zip(batch.places, found_all, strict=True):
                verdicts[place] = verdict
        return batch

    def _count(self, items: list[tuple[Event, bool]]) -> list[Verdict]:
        now, ingestor = self._product.clock.now(), self._product.ingestor
        flags = {importing for _, importing in items}
        if len(flags) == 1:
            return ingestor.ingest([event for event, _ in items], now=now, importing=flags.pop())
        verdicts: list[Verdict | None] = [None] * len(items)
        for importing in (False, True):
            places = [place for place, item in enumerate(items) if item[1] is importing]
            part = ingestor.ingest([items[p][0] for p in places], now=now, importing=importing)
            for place, verdict in zip(places, part, strict=True):
                verdicts[place] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    async def _authorize(self, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        principal = await authenticated(self._product, _text(headers.get(b"authorization")))
        require_scope(principal, Scope.QUOTA_WRITE)
        try:
            asked = _ask.decode(await _body(headers, receive))
        except msgspec.ValidationError as error:
            raise Invalid(str(error), code="bad_body") from None
        quantity = parse_quantity(asked.quantity)
        if not 0 < quantity < QUANTITY_MAX:
            detail = "ask for more than 0 and less than 10^18"
            raise Invalid(detail, code="bad_quantity", field="quantity")
        only = await bound_key(self._product, principal)
        if only not in {None, asked.customer}:
            return denial(Denied(Reason.UNKNOWN_CUSTOMER), now=self._product.clock.now())
        decision = (await self._asks.submit([Ask(asked.customer, asked.meter, quantity)]))[0]
        if isinstance(decision, Denied):
            return denial(decision, now=self._product.clock.now())
        return 200, _JSON, _allowed(decision), {}

    def _decide(self, asks: list[Ask]) -> list[Decision]:
        return self._product.gate.authorize(asks, now=self._product.clock.now())


def _allowed(decision: Allowed) -> bytes:
    return _encode(
        {
            "allowed": True,
            "reservation": ids.typeid("rsv", decision.reservation_id),
            "expires_at": instant_text(decision.expires_at),
        }
    )


def denial(denied: Denied, *, now: datetime) -> Answer:
    """Return the answer that says no: a problem with the reason, and when to ask again."""
    status = DENIAL_STATUS[denied.reason]
    found = problems.problem(status, denied.reason, _DENIALS[denied.reason])
    document = {**msgspec.to_builtins(found), "allowed": False, "reason": denied.reason}
    extra = {}
    if denied.resets_at is not None:
        document["resets_at"] = instant_text(denied.resets_at)
        wait = ((denied.retry_at or denied.resets_at) - now).total_seconds()
        extra["retry-after"] = str(max(1, ceil(wait)))
    return status, problems.MEDIA_TYPE.encode(), _encode(document), extra


_LOST_STATUS: Final = {"conflict": 409, "rejected": 422}
_ACCEPTED_ONE: Final = b'{"accepted":1,"duplicate":0,"conflict":0,"rejected":0}'


def _report(verdicts: list[Verdict | None], *, single: bool, whole: bool = False) -> Answer:
    """Say what became of each event: counts, and an entry for each that was not accepted.

    With `whole`, one event that is not counted makes the answer an error.
    """
    if single and verdicts[0] is not None and verdicts[0].status == "accepted":
        return 202, _JSON, _ACCEPTED_ONE, {}
    counts = dict.fromkeys(("accepted", "duplicate", "conflict", "rejected"), 0)
    others: list[dict[str, Any]] = []
    for index, verdict in enumerate(verdicts):
        if verdict is None:
            continue
        counts[verdict.status] += 1
        if verdict.status != "accepted":
            others.append({"index": index, **msgspec.to_builtins(verdict)})
    document: dict[str, Any] = {**counts, "events": others}
    status = 202
    lost = [one for one in others if one["status"] != "duplicate"]
    if lost and (single or whole or counts["rejected"] == len(verdicts)):
        worst = lost[0]
        status = _LOST_STATUS[worst["status"]]
        told = problems.problem(status, worst["reason"], worst.get("detail"), worst.get("field"))
        document |= msgspec.to_builtins(told)
    kind = _JSON if status < _ERROR else problems.MEDIA_TYPE.encode()
    return status, kind, _encode(document), {}


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """Read the body up to its limit, unpacking gzip up to the same limit.

    Raises: LimitExceeded (413 by its code), Invalid for a broken or unknown encoding.
    """
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > BODY_SIZE_MAX:
        raise BodyTooLarge
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message: dict[str, Any] = {**await receive()}
        if message["type"] == "http.disconnect":
            raise Invalid("the request ended before its body", code="malformed")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_SIZE_MAX:
            raise BodyTooLarge
        parts.append(part)
        more = bool(message.get("more_body", False))
    body = b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding != b"gzip":
        raise Invalid("send the body plain or as gzip", code="bad_encoding")
    return _unpacked(body)


class BodyTooLarge(LimitExceeded):
    """The body is over its limit."""

    code = "body_too_large"

    def __init__(self) -> None:
        """Name the limits."""
        megabytes = BODY_SIZE_MAX // 1024 // 1024
        super().__init__(f"send at most {BATCH_MAX} events and {megabytes} MiB a request")


def _unpacked(body: bytes) -> bytes:
    """Unpack gzip, which may have several members (RFC 1952, 2.2), up to the limits."""
    plain = b""
    for _ in range(_GZIP_MEMBERS_MAX):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            plain += unpacker.decompress(body, BODY_SIZE_MAX + 1 - len(plain))
        except zlib.error:
            raise Invalid("the gzip body is broken; send it again", code="bad_encoding") from None
        if len(plain) > BODY_SIZE_MAX:
            raise BodyTooLarge
        if not unpacker.eof:
            raise Invalid("the gzip body ends too early; send it again", code="bad_encoding")
        body = unpacker.unused_data
        if not body:
            return plain
    detail = f"send at most {_GZIP_MEMBERS_MAX} gzip members a request"
    raise Invalid(detail, code="bad_encoding")


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")


async def _send(
    send: Send, status: int, kind: bytes, body: bytes, extra: dict[str, str] | None = None
) -> None:
    content = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers = [
        *(content if kind else ()),  # 204 has neither (RFC 9110, 15.3.5)
        *SECURITY_HEADERS,
        *((name.encode(), value.encode()) for name, value in (extra or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
    await send(message)
