"""The WSGI middleware: the end of the response decides, and `close()` tells it."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from convergio_client import Convergio, ConvergioWSGI
from tests.fakes.billing import FakeBilling

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


@pytest.fixture
def client(billing: FakeBilling) -> Iterator[Convergio]:
    with Convergio(
        "http://b.test", "key", transport=billing.transport, patience_seconds=0.2
    ) as one:
        yield one


class Served:
    """What a server got."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def start(
        self, status: str, headers: list[tuple[str, str]], _error: object = None
    ) -> Callable[[bytes], object]:
        """Take the status and headers."""
        self.status, self.headers = int(status[:3]), dict(headers)
        return self._write

    def _write(self, part: bytes) -> None:
        self.body += part


def serve(
    client: Convergio,
    app: App,
    *,
    who: str | None = "acme",
    parts_max: int = 99,
    quantity: Any = 1,  # noqa: ANN401 - a quantity or what gives one
) -> Served:
    """Serve one request as a WSGI server does; read at most so many parts before it hangs up."""
    guarded = ConvergioWSGI(
        app, client, customer=lambda _: who, meter="questions", quantity=quantity
    )
    served = Served()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    result = guarded(environ, served.start)
    try:
        for number, part in enumerate(result):
            if number >= parts_max:
                break
            served.body += part
    finally:
        if hasattr(result, "close"):
            result.close()
    return served


def says(status: str, *parts: bytes) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI
        start_response(status, [("Content-Type", "text/plain")])
        return list(parts)

    return app


def streams(*parts: bytes | Exception) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:  # noqa: ANN401 - WSGI
        start_response("200 OK", [("Content-Type", "text/plain")])
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    return app


@pytest.mark.parametrize("app", [says("200 OK", b"a", b"b"), streams(b"a", b"b")])
def test_a_response_that_was_read_to_its_end_is_counted(
    billing: FakeBilling, client: Convergio, app: App
) -> None:
    assert serve(client, app).body == b"ab"
    assert billing.used == 1
    assert not billing.held


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Oh"])
def test_an_error_is_not_counted(billing: FakeBilling, client: Convergio, status: str) -> None:
    assert serve(client, says(status, b"no")).status == int(status[:3])
    assert billing.used == 0
    assert not billing.held


def test_a_stream_that_was_closed_early_is_not_counted(
    billing: FakeBilling, client: Convergio
) -> None:
    assert serve(client, streams(b"a", b"b", b"c"), parts_max=2).body == b"ab"
    assert billing.used == 0
    assert not billing.held


def test_an_exception_gives_the_quota_back_and_passes(
    billing: FakeBilling, client: Convergio
) -> None:
    def fails(environ: dict[str, Any], _: object) -> Iterable[bytes]:
        raise KeyError("at once")

    for app in (streams(b"a", KeyError("late")), fails):
        with pytest.raises(KeyError):
            serve(client, app)
    assert billing.used == 0
    assert not billing.held


def test_a_body_whose_closing_fails_is_not_counted(billing: FakeBilling, client: Convergio) -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise KeyError("the transaction did not commit")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI
        start_response("200 OK", [])
        return Body([b"a"])

    with pytest.raises(KeyError):
        serve(client, app)
    assert billing.used == 0
    assert not billing.held


def test_a_denied_request_never_reaches_the_application(
    billing: FakeBilling, client: Convergio
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI
        raise AssertionError("it ran")

    billing.denial = (429, "limit_reached")
    served = serve(client, app)
    assert (served.status, served.headers["retry-after"]) == (429, "60")
    assert json.loads(served.body)["reason"] == "limit_reached"


def test_a_request_of_nobody_passes_uncounted(billing: FakeBilling, client: Convergio) -> None:
    assert serve(client, says("200 OK", b"free"), who=None).body == b"free"
    assert billing.requests == []


def test_the_application_says_what_was_really_used(billing: FakeBilling, client: Convergio) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI
        environ["convergio.permit"].used = 4
        start_response("200 OK", [])
        return [b"x"]

    serve(client, app, quantity=lambda environ: 10 if environ["REQUEST_METHOD"] == "GET" else 1)
    assert billing.used == 4


def test_it_keeps_to_the_wsgi_protocol(billing: FakeBilling, client: Convergio) -> None:
    """Wsgiref's validator stands on both sides of the middleware and looks."""
    guarded = ConvergioWSGI(
        validator(streams(b"a", b"b")), client, customer=lambda _: "acme", meter="questions"
    )
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    served = Served()
    result = validator(guarded)(environ, served.start)
    assert b"".join(result) == b"ab"
    result.close()  # type: ignore[attr-defined]  # the validator's body has it
    assert billing.used == 1
