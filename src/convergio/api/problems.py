"""Errors as RFC 9457 problem documents: one table from our error tree to HTTP.

Nothing of the inside leaves: no stack, SQL, path or version, and never the value that was wrong.
"""

import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    ValidationException,
)

from convergio.infra import log
from convergio.kernel.errors import (
    Conflict,
    ConvergioError,
    Fault,
    Forbidden,
    Invalid,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)

MEDIA_TYPE: Final = "application/problem+json"
STATUS: Final[tuple[tuple[type[ConvergioError], int], ...]] = (
    (Invalid, 422),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (LimitExceeded, 429),
    (Unavailable, 503),
    (OutcomeUnknown, 202),
    (Fault, 500),
)
BY_CODE: Final = {
    "malformed": 400,
    "idempotency_key_missing": 400,
    "bad_idempotency_key": 400,
    "bad_encoding": 400,
    "unsupported_media_type": 415,
    "body_too_large": 413,
    "batch_too_large": 413,
}
RETRY_SECONDS: Final = "1"
# A person at a terminal is shown the value that was wrong; over HTTP nothing is echoed.
_ECHOES: Final = (
    (re.compile(r"^'.*?'(?= is not )", re.DOTALL), "the value"),
    (re.compile(r"^(there is no [\w ]+?) '.*?'", re.DOTALL), r"\1"),
)
_log = log.logger("api")
_encode: Final = msgspec.json.Encoder().encode


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document with our `code` and, where one value is wrong, its `field`."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    field: str | None = None


def problem(status: int, code: str, detail: str | None = None, field: str | None = None) -> Problem:
    """Return a problem whose title is the status's own phrase."""
    title = HTTPStatus(status).phrase
    return Problem(f"urn:convergio:{code}", title, status, code, detail, field)


def of(error: Exception) -> Problem:
    """Return the problem that an exception is to the outside."""
    if isinstance(error, ConvergioError):
        known = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        status = BY_CODE.get(error.code, known)
        return problem(status, error.code, _told(error.detail, status), error.field)
    if isinstance(error, ValidationException):
        return _invalid(error)
    if isinstance(error, MethodNotAllowedException):
        detail = f"nothing here answers that method; it takes {_allowed(error)}"
        return problem(error.status_code, "method_not_allowed", detail)
    if isinstance(error, HTTPException):
        return problem(error.status_code, "invalid", _told(str(error.detail), error.status_code))
    if isinstance(error, UnicodeDecodeError | RecursionError | msgspec.DecodeError):
        return problem(400, "malformed", "the body is not well-formed JSON; mend it")
    return problem(500, "fault")


def _told(detail: str, status: int) -> str | None:
    """Return a sentence without the value that was wrong; of a fault, nothing."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    for pattern, instead in _ECHOES:
        detail = pattern.sub(instead, detail)
    return log.redact(detail) or None


def _invalid(error: ValidationException) -> Problem:
    """Name the field that the framework found wrong, never its value."""
    extra = error.extra if isinstance(error.extra, list) else []
    first = extra[0] if extra and isinstance(extra[0], dict) else {}
    message, field = str(first.get("message") or "a value is not valid"), first.get("key")
    unknown = re.search(r"unknown field `([^`]{1,100})`", message)
    missing = re.match(r"Missing required \w+ parameter '(\w{1,100})'", str(error.detail))
    if unknown is not None:
        field, message = unknown[1], "there is no such field; leave it out"
    elif missing is not None:
        field, message = missing[1], "this parameter is missing; give it"
    return problem(422, "invalid", _told(message, 422), log.redact(str(field)) if field else None)


def headers(found: Problem, error: Exception | None = None) -> dict[str, str]:
    """Return the extra headers of a problem: what its error brings, or its status asks for."""
    if isinstance(error, MethodNotAllowedException):
        return {"allow": _allowed(error)}
    brought: dict[str, str] | None = getattr(error, "headers", None)
    if isinstance(error, ConvergioError) and brought is not None:
        return brought
    if found.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        return {"retry-after": RETRY_SECONDS}
    if found.status == HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": 'Bearer realm="convergio"'}
    return {}


def _allowed(error: MethodNotAllowedException) -> str:
    """Return the methods that a path takes: a 405 names them (RFC 9110, 15.5.6)."""
    return str((error.headers or {}).get("allow", ""))


def body(found: Problem) -> bytes:
    """Return the document."""
    return _encode(found)


def answer(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an exception of a route."""
    found = of(error)
    if found.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("fault", error=type(error).__name__, exc_info=error)
    return Response(
        body(found),
        status_code=found.status,
        media_type=MEDIA_TYPE,
        headers=headers(found, error),
    )
