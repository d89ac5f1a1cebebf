"""A quota in front of any WSGI application (Django, Flask): the ASGI middleware's blocking twin.

Counted is a response below 400 that the server read to its end; its `close()` decides (PEP 3333).
An error status, an exception and a response that was closed early give the quota back. The permit
is in `environ["convergio.permit"]`; set its `used` before the last byte to count something else
than what was held.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

from convergio_client import clock, denial
from convergio_client.client import Convergio
from convergio_client.errors import ClientError, Invalid
from convergio_client.model import Permit, Quantity

Environ = dict[str, Any]
ErrorInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
_ERROR: Final = 400
_log: Final = logging.getLogger("convergio_client")


class ConvergioWSGI:
    """Wrap an application: `ConvergioWSGI(app, client, customer=..., meter="questions")`."""

    def __init__(
        self,
        app: Application,
        client: Convergio,
        *,
        customer: Callable[[Environ], str | None],
        meter: str,
        quantity: Quantity | Callable[[Environ], Quantity] = 1,
    ) -> None:
        """Take who the customer of a request is; for None it passes, uncounted."""
        self._app = app
        self._client = client
        self._customer = customer
        self._meter = meter
        self._quantity = quantity

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        customer = self._customer(environ)
        if customer is None:
            return self._app(environ, start_response)
        quantity = self._quantity(environ) if callable(self._quantity) else self._quantity
        try:
            permit = self._client.reserve(customer, self._meter, quantity)
        except Invalid:
            raise  # the application asks wrongly: its own error, and its own page for it
        except ClientError as error:
            status, headers, body = denial.answer(error, clock.now())
            start_response(f"{status.value} {status.phrase}", headers)
            return [body]
        exchange = _Exchange(self._client, permit, start_response)
        environ[denial.PERMIT_KEY] = permit
        try:
            return exchange.body(self._app(environ, exchange.start))
        except BaseException:
            exchange.settle(counted=False)
            raise


class _Exchange:
    """One response under way: knows its status, and settles the permit exactly once."""

    def __init__(self, client: Convergio, permit: Permit, start_response: StartResponse) -> None:
        self._client = client
        self._permit = permit
        self._start = start_response
        self._status = 0
        self._settled = False

    def start(
        self, status: str, headers: list[tuple[str, str]], error: ErrorInfo | None = None
    ) -> Callable[[bytes], object]:
        """Note the status and pass it on; an error may replace it later."""
        self._status = int(status[:3])
        return self._start(status, headers, *(() if error is None else (error,)))

    def body(self, parts: Iterable[bytes]) -> "_Body":
        """Return the response's body, watched."""
        return _Body(self, parts)

    def end(self, *, complete: bool) -> None:
        """Settle by what was sent."""
        self.settle(counted=complete and 0 < self._status < _ERROR)

    def settle(self, *, counted: bool) -> None:
        """Commit or release, once."""
        if self._settled:
            return
        self._settled = True
        try:
            if counted:
                self._client.commit(self._permit)
            else:
                self._client.release(self._permit)
        except ClientError as error:
            what = "counted" if counted else "released and expires"
            level = logging.ERROR if counted else logging.WARNING
            _log.log(level, "%s was not %s: %s", self._permit.reservation, what, error)


class _Body:
    """The application's body; `close` is where the server says that it is done, or gave up."""

    def __init__(self, exchange: _Exchange, parts: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._parts = parts
        self._complete = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        self._complete = True

    def close(self) -> None:
        """Close the application's own body first: what it raises there is a failure."""
        closed = False
        try:
            close = getattr(self._parts, "close", None)
            if close is not None:
                close()
            closed = True
        finally:
            self._exchange.end(complete=self._complete and closed)
