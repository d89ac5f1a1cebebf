"""Who asks, and may they: every route declares a scope, or says that it is open."""

import asyncio
from typing import Any, Final
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Message
from litestar.types import Scope as AsgiScope

from convergio.api.limiting import Limits
from convergio.customers import actions as customers
from convergio.customers.errors import CustomerNotFound
from convergio.identity import actions as identity
from convergio.identity.model import Principal
from convergio.identity.rules import require_scope
from convergio.kernel.errors import Forbidden, Unauthenticated
from convergio.wiring import App

SCOPE_KEY: Final = "scope"
PUBLIC: Final = "public"


def presented(header: str | None) -> str:
    """Return the key of an Authorization header. Raises: Unauthenticated."""
    kind, _, key = (header or "").partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        detail = "send `Authorization: Bearer <api key>`; make one with `convergio apikey create`"
        raise Unauthenticated(detail)
    return key.strip()


async def authenticated(product: App, header: str | None) -> Principal:
    """Return who sends the header; the database is asked only when the cache does not know."""
    key, now = presented(header), product.clock.now()
    found = product.keys.find(key, now=now)
    if found is not None:
        return found

    def ask() -> Principal:
        with product.database.transaction() as tx:
            return identity.authenticate(tx, key, now=now, cache=product.keys)

    return await asyncio.to_thread(ask)


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let a request through to a route whose scope its key holds."""
    scope = handler.opt.get(SCOPE_KEY)
    if scope is None:
        if handler.opt.get(PUBLIC):
            return
        raise Forbidden("this route declares no scope")
    product: App = connection.app.state.product
    limits: Limits = connection.app.state.limits
    limits.check_address(connection.client.host if connection.client else None)
    principal = await authenticated(product, connection.headers.get("authorization"))
    connection.scope["state"]["standing"] = limits.check(principal)
    require_scope(principal, scope)
    connection.scope["state"]["principal"] = principal


async def tell_standing(message: Message, scope: AsgiScope) -> None:
    """Add how the asker's limit stands to the headers of an answer."""
    standing = scope["state"].get("standing")
    if standing is not None and message["type"] == "http.response.start":
        told = standing.headers().items()
        message["headers"] = [
            *message.get("headers", []),
            *((name.encode(), value.encode()) for name, value in told),
        ]


def own(principal: Principal, customer_id: UUID) -> None:
    """Hide any other customer from a key that is bound to one: as if there were none.

    Raises: NotFound, to the letter as for a customer who does not exist.
    """
    if principal.customer_id not in {None, customer_id}:
        raise CustomerNotFound


def unbound(principal: Principal) -> None:
    """Raise Forbidden for a key that is bound to a customer: this is the seller's alone."""
    if principal.customer_id is not None:
        raise Forbidden("a key that belongs to a customer cannot do this; use one of the seller's")


async def bound_key(product: App, principal: Principal) -> str | None:
    """Return the customer key that a bound API key may speak for; None when it is not bound."""
    customer_id = principal.customer_id
    if customer_id is None:
        return None

    def ask() -> str:
        with product.database.transaction() as tx:
            return customers.get(tx, customer_id).customer_key

    return await asyncio.to_thread(ask)
