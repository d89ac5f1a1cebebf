"""The OpenAPI document: what the framework knows of the routes, and what only we do.

The framework writes paths, parameters and bodies. Added here, the same for every operation: the
scope that its key needs, the Idempotency-Key where one is asked for, the one form of every error,
and an example of a request and of its answer. Operation ids are the handlers' names: they stay.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import HTTPRoute

from convergio.api import problems
from convergio.api.examples import Example, examples
from convergio.api.once import is_once
from convergio.api.requests import function_of
from convergio.api.security import SCOPE_KEY
from convergio.infra.answers import HEADER

JSON: Final = "application/json"
_CHANGES: Final = frozenset({"post", "put", "patch"})
_PROBLEM: Final = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable; `field` names what is wrong.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
}
_PROBLEM_EXAMPLE: Final = {
    "type": "urn:convergio:unknown_plan",
    "title": "Not Found",
    "status": 404,
    "code": "unknown_plan",
    "detail": "there is no plan; see `convergio catalog` for the plans",
    "field": "plan",
}
_ERROR: Final = {
    "description": "Refused, limited or failed: a problem document whatever the status.",
    "content": {
        problems.MEDIA_TYPE: {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "example": _PROBLEM_EXAMPLE,
        }
    },
}
_KEY_HEADER: Final = {
    "name": HEADER,
    "in": "header",
    "required": True,
    "description": "A value of your own for this change, the same again on a retry.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "7b0c2f4e-8f0e-4f7e-9d3c-2a1f6c1d9e55",
}
_CATALOG: Final = {"application/yaml": {"schema": {"type": "string"}}}


class Described(JsonRenderPlugin):
    """Serves the document as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the framework's document with ours added; the framework keeps its own."""
        return self.render_json(request, described(request.app, openapi_schema))


def operation_id(handler: HTTPRouteHandler, *_: object) -> str:
    """Return the lasting name of an operation: that of its function."""
    return str(function_of(handler).__name__)


def operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Yield path, method and handler of every operation in the document."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if handler.resolve_include_in_schema():
                for method in handler.http_methods - {"OPTIONS"}:
                    yield route.path_format, method.lower(), handler


def described(app: Litestar, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with scopes, keys, errors and examples."""
    document = deepcopy(document)
    parts = document.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = _PROBLEM
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    known = examples()
    for path, method, handler in operations(app):
        operation = document["paths"][path][method]
        _describe(operation, method, handler, known.get(operation["operationId"]))
    return document


def _describe(
    operation: dict[str, Any], method: str, handler: HTTPRouteHandler, example: Example | None
) -> None:
    scope = handler.opt.get(SCOPE_KEY)
    operation["security"] = [] if scope is None else [{"key": [str(scope)]}]
    if is_once(handler):
        operation["parameters"] = [*operation.get("parameters", []), _KEY_HEADER]
    answers = {
        status: answer for status, answer in operation["responses"].items() if status < "400"
    }
    operation["responses"] = answers | {"default": _ERROR}
    if example is None:
        return
    (answer,) = answers.values()
    if example.media == JSON:
        kept = answer.setdefault("content", {}).setdefault(JSON, {"schema": {"type": "object"}})
        kept["example"] = example.answer
    else:
        answer["content"] = {example.media: {"schema": {"type": "string", "format": "binary"}}}
    if method in _CHANGES and example.request is not None:
        body = operation.setdefault(
            "requestBody", {"required": True, "content": deepcopy(_CATALOG)}
        )
        for kind in body["content"].values():
            kind["example"] = example.request
