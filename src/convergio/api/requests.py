"""What handlers ask of a request: the open product, who sends it, and whose data they may see."""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from convergio.api.security import SCOPE_KEY, own
from convergio.customers import actions as customers
from convergio.identity.model import Principal, Scope
from convergio.kernel.quantity import quantity_text
from convergio.wiring import App

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*\Z")]
Word = Annotated[str | None, QueryParameter(max_length=255, pattern=r"^[^\x00]*$")]
PageSize = Annotated[int, QueryParameter(ge=1, le=100)]
Anyone = Request[Any, Any, Any]


def needs(scope: Scope) -> dict[str, Any]:
    """Declare the scope that a route's key must hold."""
    return {SCOPE_KEY: scope}


def function_of(handler: HTTPRouteHandler) -> Any:  # noqa: ANN401 - any function
    """Return the function that serves a route; the framework wraps those that run in a thread."""
    found: Any = handler.fn
    while hasattr(found, "func"):
        found = found.func
    return found


def product_of(request: Anyone) -> App:
    """Return the open product."""
    product: App = request.app.state.product
    return product


def principal_of(request: Anyone) -> Principal:
    """Return who sends the request."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


def own_key(product: App, principal: Principal, customer: str) -> None:
    """Hide any other customer from a key that is bound to one. Raises: NotFound."""
    if principal.customer_id is not None:
        with product.database.transaction() as tx:
            own(principal, customers.find(tx, customer).customer_id)


def quantity_or_none(value: Decimal | None) -> str | None:
    """Return a quantity as text, where there is one."""
    return None if value is None else quantity_text(value)
