"""Do what moves money once: `@once` gives a handler its transaction and keeps its answer.

A handler under `@once` takes the open transaction first and returns what JSON takes. Its request
must carry an Idempotency-Key. The same key and request get the stored answer, byte for byte; the
same key with another request is refused, and so is one whose first request is still at work. Claim,
work and answer are one transaction (`infra/answers.py`), which is begun again from the claim on
when it met another one (`Database.insist`): the key is claimed by the try that is committed.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from typing import Any, Concatenate, Final, ParamSpec, cast

import msgspec
from litestar import Response
from litestar.handlers import HTTPRouteHandler

from convergio.api.requests import Anyone, function_of, principal_of, product_of
from convergio.infra import answers
from convergio.infra.db import Tx

REPLAYED: Final = "idempotent-replayed"
_MARK: Final = "__once__"
P = ParamSpec("P")


def once(work: Callable[Concatenate[Tx, P], Any]) -> Callable[P, Any]:
    """Return a handler that does the work at most once a key.

    Raises: Invalid without a good key, Conflict while the first request with it is at work.
    """

    @wraps(work)
    def handler(*args: P.args, **kwargs: P.kwargs) -> Response[bytes]:
        request = cast("Anyone", kwargs["request"])
        product = product_of(request)
        key = answers.read_key(request.headers.getall(answers.HEADER, []))
        owner = principal_of(request).customer_id or answers.SELLER
        wanted = _fingerprint(request, kwargs)

        def whole(tx: Tx) -> tuple[answers.Answer, bool]:
            kept = answers.begin(tx, owner, key, wanted)
            if kept is not None:
                return kept, True
            body = msgspec.json.encode(work(tx, *args, **kwargs))
            done = answers.Answer(wanted, request.route_handler.status_code, body)
            answers.keep(tx, owner, key, done, now=product.clock.now())
            return done, False

        found, is_replayed = product.database.insist(whole)
        return Response(
            found.body,
            status_code=found.status,
            media_type="application/json",
            headers={REPLAYED: "true"} if is_replayed else {},
        )

    # the framework fills what the handler asks for; the transaction is ours to give
    whole = inspect.signature(work)
    first, *others = whole.parameters.values()
    vars(handler)["__signature__"] = whole.replace(parameters=others)
    handler.__annotations__ = {k: v for k, v in work.__annotations__.items() if k != first.name}
    setattr(handler, _MARK, True)
    return handler


def is_once(handler: HTTPRouteHandler) -> bool:
    """Say whether a route asks for an Idempotency-Key."""
    return bool(getattr(function_of(handler), _MARK, False))


def _fingerprint(request: Anyone, given: dict[str, Any]) -> bytes:
    """Return what makes two requests the same: method, path and what was understood of the rest.

    The order of a body's fields and its white space are not part of it.
    """
    values = {name: value for name, value in given.items() if name != "request"}
    whole = (request.method, request.scope["path"], values)
    return sha256(msgspec.json.encode(whole, order="deterministic")).digest()
