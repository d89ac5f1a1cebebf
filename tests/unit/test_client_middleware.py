"""The ASGI middleware: check before, count after success, nothing on failure, streams included."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from convergio_client import AsyncConvergio, ConvergioMiddleware, Invalid
from tests.fakes.billing import FakeBilling

Parts = list[bytes]
Handler = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    """An ASGI server with one request: it knows when its client has gone."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        """Give the request's body once, then wait for the client to leave."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"question", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Keep what the application says; like uvicorn, ignore it when nobody listens."""
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The response's status."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        """The response's body."""
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def says(status: int, *parts: bytes) -> Handler:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    return app


def run(
    billing: FakeBilling,
    app: Handler,
    *,
    who: str | None = "acme",
    scope_type: str = "http",
    quantity: Any = 1,  # noqa: ANN401 - a quantity or what gives one
    server: Callable[[], Server] = Server,
) -> Server:
    """Serve one request through the middleware; its error passes."""

    async def story() -> Server:
        serving = server()
        client = AsyncConvergio(
            "http://b.test", "key", transport=billing.transport, patience_seconds=0.2
        )
        guarded = ConvergioMiddleware(
            app, client, customer=lambda _: who, meter="questions", quantity=quantity
        )
        scope = {"type": scope_type, "path": "/", "headers": []}
        try:
            receive, send = serving.receive, serving.send
            await guarded(scope, receive, send)  # type: ignore[arg-type]  # dicts are messages
        finally:
            await client.close()
        return serving

    return asyncio.run(story())


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


@pytest.mark.parametrize("parts", [[b"one"], [b"one", b"two", b""]])
def test_a_response_that_was_sent_whole_is_counted(billing: FakeBilling, parts: Parts) -> None:
    served = run(billing, says(200, *parts))
    assert served.body == b"".join(parts)
    assert billing.used == 1
    assert not billing.held


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_is_not_counted(billing: FakeBilling, status: int) -> None:
    assert run(billing, says(status, b"no")).status == status
    assert billing.used == 0
    assert not billing.held


def test_nothing_is_counted_before_the_last_byte(billing: FakeBilling) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert len(billing.held) == 1
        await send({"type": "http.response.body", "body": b"b"})
        assert billing.used == 1

    run(billing, app)


def test_an_exception_gives_the_quota_back_and_passes(billing: FakeBilling) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise KeyError("the application's own")

    with pytest.raises(KeyError, match="own"):
        run(billing, app)
    assert billing.used == 0
    assert not billing.held


def test_work_after_the_response_may_fail_and_it_stays_counted(billing: FakeBilling) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await says(200, b"done")(scope, receive, send)
        raise KeyError("a background task")

    with pytest.raises(KeyError):
        run(billing, app)
    assert billing.used == 1


@pytest.mark.parametrize("listens", [True, False])
def test_a_client_that_left_before_the_end_is_not_counted(
    billing: FakeBilling, *, listens: bool
) -> None:
    serving: list[Server] = []

    def server() -> Server:
        serving.append(Server())
        return serving[0]

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        serving[0].gone.set()
        if listens:
            assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"b"})

    run(billing, app, server=server)
    assert billing.used == 0
    assert not billing.held


def test_an_application_that_listens_beside_its_stream_hears_every_message(
    billing: FakeBilling,
) -> None:
    """Starlette does so: one task streams while another waits for the client to leave."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        assert (await receive())["body"] == b"question"
        listener = asyncio.create_task(receive())
        await says(200, b"a", b"b")(scope, _never_asked, send)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    async def _never_asked() -> None:
        await asyncio.sleep(0)

    run(billing, app)
    assert billing.used == 1


def test_a_late_reader_still_gets_the_body_of_its_request(billing: FakeBilling) -> None:
    read: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"b"})
        read.append(await receive())

    run(billing, app)
    assert read[0]["body"] == b"question"
    assert billing.used == 1


def test_a_canceled_request_is_not_counted(billing: FakeBilling) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        run(billing, app)
    assert billing.used == 0
    assert not billing.held


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ((429, "limit_reached"), 429), ((403, "suspended"), 403), ((402, "spend_cap"), 402),
        ((403, "no_subscription"), 403), ((404, "unknown_customer"), 403),
    ],
)  # fmt: skip
def test_a_denied_request_never_reaches_the_application(
    billing: FakeBilling, told: tuple[int, str], status: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        raise AssertionError("it ran")

    billing.denial = told
    served = run(billing, app)
    document = json.loads(served.body)
    assert served.status == status
    assert served.headers["content-type"] == "application/problem+json"
    assert served.headers["content-length"] == str(len(served.body))
    assert "retry-after" in served.headers
    assert (document["status"], document["reason"]) == (status, told[1])
    assert document["resets_at"] == "2025-02-01T00:00:00Z"


def test_a_billing_that_cannot_be_asked_is_503(
    billing: FakeBilling, caplog: pytest.LogCaptureFixture
) -> None:
    billing.down = True
    served = run(billing, says(200, b"x"))
    assert (served.status, served.headers["retry-after"]) == (503, "1")
    assert json.loads(served.body)["code"] == "quota_unavailable"
    assert "nobody listens" in caplog.text


def test_a_request_of_nobody_and_what_is_not_http_pass_uncounted(billing: FakeBilling) -> None:
    assert run(billing, says(200, b"free"), who=None).body == b"free"
    run(billing, says(200, b"x"), scope_type="lifespan")
    assert billing.requests == []


def test_the_application_says_what_was_really_used(billing: FakeBilling) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        scope["convergio.permit"].used = "2.5"
        await says(200, b"x")(scope, receive, send)

    run(billing, app, quantity=lambda scope: 10 if scope["path"] == "/" else 1)
    assert str(billing.used) == "2.5"


def test_a_quantity_that_is_none_is_the_applications_error(billing: FakeBilling) -> None:
    with pytest.raises(Invalid):
        run(billing, says(200, b"x"), quantity=-1)


def test_usage_that_could_not_be_counted_is_logged_with_its_reservation(
    billing: FakeBilling, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        billing.down = True
        await says(200, b"x")(scope, receive, send)

    with caplog.at_level(logging.ERROR, "convergio_client"):
        run(billing, app)
    (reservation,) = billing.held
    assert f"{reservation} was not counted" in caplog.text
