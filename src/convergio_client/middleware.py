"""A quota in front of any ASGI application: check before, count after success, nothing on failure.

Counted is a response below 400 whose last byte was handed to the server while its client was
still there, streaming included. An error status, an exception, a cancellation and a client that
left give the quota back. The permit is in `scope["convergio.permit"]`; set its `used` before the
last byte to count something else than what was held. Only HTTP is guarded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from convergio_client import clock, denial
from convergio_client.aio import AsyncConvergio
from convergio_client.errors import ClientError, Invalid
from convergio_client.model import Permit, Quantity

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
_ERROR: Final = 400
_DISCONNECT: Final = "http.disconnect"
_log: Final = logging.getLogger("convergio_client")


class ConvergioMiddleware:
    """Wrap an application: `ConvergioMiddleware(app, client, customer=..., meter="questions")`."""

    def __init__(
        self,
        app: Application,
        client: AsyncConvergio,
        *,
        customer: Callable[[Scope], str | None],
        meter: str,
        quantity: Quantity | Callable[[Scope], Quantity] = 1,
    ) -> None:
        """Take who the customer of a request is; for None it passes, uncounted."""
        self._app = app
        self._client = client
        self._customer = customer
        self._meter = meter
        self._quantity = quantity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        customer = self._customer(scope) if scope["type"] == "http" else None
        if customer is None:
            await self._app(scope, receive, send)
            return
        quantity = self._quantity(scope) if callable(self._quantity) else self._quantity
        try:
            permit = await self._client.reserve(customer, self._meter, quantity)
        except Invalid:
            raise  # the application asks wrongly: its own error, and its own page for it
        except ClientError as error:
            await _refuse(error, send)
            return
        exchange = _Exchange(self._client, permit, receive, send)
        try:
            await self._app({**scope, denial.PERMIT_KEY: permit}, exchange.receive, exchange.send)
        finally:
            await exchange.end()


class _Exchange:
    """One request under way: sees every message, and settles the permit exactly once."""

    def __init__(
        self, client: AsyncConvergio, permit: Permit, receive: Receive, send: Send
    ) -> None:
        self._client = client
        self._permit = permit
        self._receive = receive
        self._send = send
        self._status = 0
        self._settled = False
        self._next: asyncio.Task[Message] | None = None
        self._left = False

    async def receive(self) -> Message:
        """Give the application its next message."""
        task = self._asked()
        try:
            message = await asyncio.shield(task)
        finally:
            if task.done() and self._next is task:
                self._next = None
        self._left = self._left or message["type"] == _DISCONNECT
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; after the last one, count."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        last = message["type"] == "http.response.pathsend" or (
            message["type"] == "http.response.body" and not message.get("more_body", False)
        )
        gone = last and await self._client_left()
        await self._send(message)
        if last and not self._settled:
            await self._settle(counted=self._status < _ERROR and not gone)

    async def end(self) -> None:
        """Give back what was not counted, and stop listening."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None
        if not self._settled:
            await self._settle(counted=False)

    def _asked(self) -> asyncio.Task[Message]:
        if self._next is None:
            self._next = asyncio.ensure_future(_awaited(self._receive()))
        return self._next

    async def _client_left(self) -> bool:
        """Look, without waiting, whether the server knows that the client is gone."""
        if not self._left:
            task = self._asked()
            for _ in range(3):  # the receiver may need a turn or two of the loop to answer
                await asyncio.sleep(0)
            if task.done() and not task.cancelled() and task.exception() is None:
                self._left = task.result()["type"] == _DISCONNECT
        return self._left

    async def _settle(self, *, counted: bool) -> None:
        self._settled = True
        try:
            if counted:
                await self._client.commit(self._permit)
            else:
                await self._client.release(self._permit)
        except ClientError as error:
            what = "counted" if counted else "released and expires"
            level = logging.ERROR if counted else logging.WARNING
            _log.log(level, "%s was not %s: %s", self._permit.reservation, what, error)


async def _awaited(message: Awaitable[Message]) -> Message:
    return await message


async def _refuse(error: ClientError, send: Send) -> None:
    status, headers, body = denial.answer(error, clock.now())
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status.value, "headers": raw})
    await send({"type": "http.response.body", "body": body})
