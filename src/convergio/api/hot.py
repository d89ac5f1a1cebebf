"""The outermost layer: events and authorize without a framework, security headers on everything.

These two routes take nearly all requests, so they parse, authorise and hand over to a Batcher
with nothing in between. Their twins in `routes.py` exist for the OpenAPI document only.
"""

import zlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from math import ceil
from typing import Annotated, Any, Final, cast

import msgspec
from litestar.types import ASGIApp, Message, Receive, Send
from litestar.types import Scope as AsgiScope

from convergio.api import problems
from convergio.api.limiting import Limits
from convergio.api.room import Room, Share
from convergio.api.security import authenticated, bound_key, presented
from convergio.entitlements.model import Allowed, Ask, Decision, Denied, Reason, Refused
from convergio.entitlements.rules import reservation_id
from convergio.identity.model import Principal, Scope
from convergio.identity.rules import require_scope
from convergio.infra import ids, log
from convergio.infra.batcher import Batcher
from convergio.kernel.errors import ConvergioError, Invalid, LimitExceeded
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import parse_quantity
from convergio.metering.model import ACCEPTED, BATCH_MAX, Event, Verdict
from convergio.metering.reading import Reading, is_binary, read_binary, read_events
from convergio.metering.rules import QUANTITY_MAX
from convergio.wiring import App

BODY_SIZE_MAX: Final = 8 * 1024 * 1024
_ASK_SIZE_MAX: Final = 16 * 1024  # an ask is a few hundred bytes, and is not counted in the room
_UNREAD_SIZE_MAX: Final = 1024 * 1024  # so that a few who send nothing cannot take all the room
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
    """Ask whether a customer may use so much of a meter now: the body of `POST /v1/authorize`.

    With an `id` of your own the same ask may be repeated when no answer came: it holds once.
    """

    customer: str
    meter: str
    quantity: str = "1"
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


_ask: Final = msgspec.json.Decoder(AskBody)
Answer = tuple[int, bytes, bytes, dict[str, str]]
Headers = dict[bytes, bytes]
Work = Callable[[Headers, Receive], Awaitable[Answer]]


class HotPath:
    """An ASGI layer around the rest of the API."""

    def __init__(self, product: App, inner: ASGIApp, limits: Limits) -> None:
        """Start the batchers of this process; `limits` are those of the routes inside."""
        settings = product.settings
        self._product = product
        self._limits = limits.of_hot_routes()
        self._room = Room()
        self._inner = inner
        self._events, self._imports = (
            Batcher(
                partial(self._count, importing=importing),
                batch_max=settings.ingest_batch_max,
                queue_max=settings.ingest_queue_max,
                name=name,
            )
            for name, importing in (("ingest", False), ("import", True))
        )
        self._asks: Batcher[Ask, Decision] = Batcher(
            self._decide, batch_max=500, queue_max=5_000, name="authorize"
        )

        self._routes: dict[str, Work] = {
            "/v1/events": self._ingest,
            "/api/v1/events": self._ingest_for_openmeter,
            "/v1/authorize": self._authorize,
        }

    def close(self) -> None:
        """Work off what is queued."""
        self._events.close()
        self._imports.close()
        self._asks.close()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve a hot route here, anything else inside."""
        request = cast("dict[str, Any]", scope)
        if request["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path, method = request["path"], request["method"]
        work = self._routes.get(path) if method == "POST" else None
        if work is not None:
            await self._answer(scope, receive, send, work)
        elif path == "/healthz":
            await _send(send, 200, _JSON, b'{"status":"ok"}')
        else:
            await self._inner(scope, receive, partial(_with_headers, send))

    async def _answer(
        self,
        scope: AsgiScope,
        receive: Receive,
        send: Send,
        work: Work,
    ) -> None:
        try:
            self._limits.check_address(scope["client"][0] if scope["client"] else None)
            status, kind, body, extra = await work(dict(scope["headers"]), receive)
        except Exception as error:  # noqa: BLE001 - the edge answers everything, and logs faults
            found = problems.of(error)
            if not isinstance(error, ConvergioError) and found.status >= _FAULT:
                _log.error("fault", error=type(error).__name__, exc_info=error)
            status, kind = found.status, problems.MEDIA_TYPE.encode()
            body, extra = problems.body(found), problems.headers(found, error)
        await _send(send, status, kind, body, extra)

    async def _ingest(self, headers: Headers, receive: Receive) -> Answer:
        batch = await self._decided(headers, receive)
        return _report(batch.verdicts, single=batch.single)

    async def _ingest_for_openmeter(self, headers: Headers, receive: Receive) -> Answer:
        """Answer as OpenMeter's clients expect: 204 when all is counted, else an error.

        The whole batch may then be sent again: what is counted already stays counted once.
        """
        batch = await self._decided(headers, receive)
        if all(one and one.status in {"accepted", "duplicate"} for one in batch.verdicts):
            return 204, b"", b"", {}
        return _report(batch.verdicts, single=batch.single, whole=True)

    async def _decided(self, headers: Headers, receive: Receive) -> Reading:
        principal = self._known(headers) or await self._authenticated(headers)
        require_scope(principal, Scope.USAGE_WRITE)
        self._limits.check(principal)
        media = headers.get(b"content-type", _JSON)
        if media not in _EVENT_TYPES:
            media = media.partition(b";")[0].strip().lower()
        binary = is_binary(headers)
        if not binary and media not in _EVENT_TYPES:
            raise Invalid("send application/json", code="unsupported_media_type")
        share = self._room.share(_declared(headers))
        try:
            body = await _body(headers, receive, BODY_SIZE_MAX, share)
            share.grow_to(len(body))
            batch = read_binary(headers, body) if binary else read_events(body)
            return await self._settled(batch, principal)
        finally:
            share.give_back()

    async def _settled(self, batch: Reading, principal: Principal) -> Reading:
        """Let the batch's events be counted, and put their verdicts in."""
        if not _may_correct(principal):
            batch.refuse_corrections()
        if principal.customer_id is not None:
            batch.keep_only(await bound_key(self._product, principal) or "")
        if batch.events:
            batcher = self._imports if _may_import(principal) else self._events
            batch.settle(await batcher.submit(batch.events))
        return batch

    def _known(self, headers: Headers) -> Principal | None:
        """Return who asks, when the cache knows. Raises: Unauthenticated."""
        key = presented(_text(headers.get(b"authorization")))
        return self._product.keys.find(key, now=self._product.clock.now())

    async def _authenticated(self, headers: Headers) -> Principal:
        return await authenticated(self._product, _text(headers.get(b"authorization")))

    def _count(self, events: list[Event], *, importing: bool) -> list[Verdict]:
        now = self._product.clock.now()
        return self._product.ingestor.ingest(events, now=now, importing=importing)

    async def _authorize(self, headers: Headers, receive: Receive) -> Answer:
        principal = self._known(headers) or await self._authenticated(headers)
        require_scope(principal, Scope.QUOTA_WRITE)
        try:
            asked = _ask.decode(await _body(headers, receive, _ASK_SIZE_MAX))
        except msgspec.ValidationError as error:
            raise Invalid(str(error), code="bad_body") from None
        self._limits.check(principal, asked.customer)
        quantity = parse_quantity(asked.quantity)
        if not 0 < quantity < QUANTITY_MAX:
            detail = "ask for more than 0 and less than 10^18"
            raise Invalid(detail, code="bad_quantity", field="quantity")
        bound = principal.customer_id is not None
        if bound and await bound_key(self._product, principal) != asked.customer:
            return denial(Denied(Reason.UNKNOWN_CUSTOMER), now=self._product.clock.now())
        chosen = reservation_id(asked.id) if asked.id is not None else None
        ask = Ask(asked.customer, asked.meter, quantity, chosen)
        decision = (await self._asks.submit([ask]))[0]
        if isinstance(decision, Refused):
            raise decision.error
        if isinstance(decision, Denied):
            return denial(decision, now=self._product.clock.now())
        return 200, _JSON, _allowed(decision), {}

    def _decide(self, asks: list[Ask]) -> list[Decision]:
        return self._product.gate.authorize(asks, now=self._product.clock.now())


def _may_correct(principal: Principal) -> bool:
    return Scope.USAGE_CORRECT in principal.scopes or Scope.ADMIN in principal.scopes


def _may_import(principal: Principal) -> bool:
    return Scope.USAGE_IMPORT in principal.scopes or Scope.ADMIN in principal.scopes


def _allowed(decision: Allowed) -> bytes:
    reservation = ids.typeid("rsv", decision.reservation_id)
    expires_at = instant_text(decision.expires_at)
    return f'{{"allowed":true,"reservation":"{reservation}","expires_at":"{expires_at}"}}'.encode()


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
_NOTHING_ELSE: Final = b'"duplicate":0,"conflict":0,"rejected":0,"events":[]}'


def _report(verdicts: list[Verdict | None], *, single: bool, whole: bool = False) -> Answer:
    """Say what became of each event: counts, and an entry for each that was not accepted.

    With `whole`, one event that is not counted makes the answer an error.
    """
    if verdicts.count(ACCEPTED) == len(verdicts):
        told = _ACCEPTED_ONE if single else b'{"accepted":%d,%b' % (len(verdicts), _NOTHING_ELSE)
        return 202, _JSON, told, {}
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
        found = problems.problem(status, worst["reason"], worst.get("detail"), worst.get("field"))
        document |= msgspec.to_builtins(found)
    kind = _JSON if status < _ERROR else problems.MEDIA_TYPE.encode()
    return status, kind, _encode(document), {}


def _declared(headers: Headers) -> int:
    """Return the room that a body gets before it is here; what is larger is counted once it is."""
    declared = headers.get(b"content-length", b"")
    return min(int(declared), _UNREAD_SIZE_MAX) if declared.isdigit() else _UNREAD_SIZE_MAX


async def _body(
    headers: Headers, receive: Receive, size_max: int, share: Share | None = None
) -> bytes:
    """Read the body up to a limit, unpacking gzip up to the same limit; the share grows with it.

    Raises: LimitExceeded (413 by its code), Invalid for a broken or unknown encoding, Unavailable
    when the room has no more.
    """
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > size_max:
        raise BodyTooLarge(size_max)
    before = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Invalid("the request ended before its body", code="malformed")
        part = message.get("body", b"")
        if len(before) + len(part) > size_max:
            raise BodyTooLarge(size_max)
        if not message.get("more_body", False):
            break
        before += part
        if share is not None:
            share.grow_to(len(before))
    body = bytes(before) + part if before else part
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding != b"gzip":
        raise Invalid("send the body plain or as gzip", code="bad_encoding")
    return _unpacked(body, size_max)


class BodyTooLarge(LimitExceeded):
    """The body is over its limit."""

    code = "body_too_large"

    def __init__(self, size_max: int) -> None:
        """Name the limits."""
        detail = f"send at most {size_max // 1024} KiB a request"
        if size_max == BODY_SIZE_MAX:
            detail = f"{detail} and {BATCH_MAX} events in it"
        super().__init__(detail)


def _unpacked(body: bytes, size_max: int) -> bytes:
    """Unpack gzip, which may have several members (RFC 1952, 2.2), up to the limits."""
    plain = b""
    for _ in range(_GZIP_MEMBERS_MAX):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            plain += unpacker.decompress(body, size_max + 1 - len(plain))
        except zlib.error:
            raise Invalid("the gzip body is broken; send it again", code="bad_encoding") from None
        if len(plain) > size_max:
            raise BodyTooLarge(size_max)
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
