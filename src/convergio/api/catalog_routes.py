"""The catalog over HTTP: what is sold, what a file would change, and the change itself.

The body of `plan` and `apply` is the catalog file as it is, YAML (of which JSON is a part), so the
same file goes through the command line, a pipeline or this door.
"""

from typing import Any, Final

from litestar import get, post
from litestar.params import RawBody

from convergio.api.requests import Anyone, needs, principal_of, product_of
from convergio.api.security import unbound
from convergio.catalog import actions, showing
from convergio.identity.model import Scope


@get("/v1/catalog", opt=needs(Scope.CATALOG_READ), sync_to_thread=True)
def show_catalog(request: Anyone) -> dict[str, Any]:
    """Return the meters, plans and prices of today."""
    with product_of(request).database.transaction() as tx:
        return showing.value(actions.current(tx))


@post("/v1/catalog/plan", status_code=200, opt=needs(Scope.CATALOG_READ), sync_to_thread=True)
def plan_catalog(request: Anyone, body: RawBody) -> dict[str, Any]:
    """Return what a catalog file would change, field by field; nothing is kept."""
    unbound(principal_of(request))
    with product_of(request).database.transaction() as tx:
        return showing.change_value(actions.plan_change(tx, body))


@post("/v1/catalog/apply", status_code=200, opt=needs(Scope.CATALOG_WRITE), sync_to_thread=True)
def apply_catalog(request: Anyone, body: RawBody) -> dict[str, Any]:
    """Make the catalog what the file says, in one transaction; again, it changes nothing."""
    unbound(principal_of(request))
    product = product_of(request)
    change = product.database.insist(lambda tx: actions.apply(tx, body, now=product.clock.now()))
    return showing.change_value(change)


CATALOG_ROUTES: Final = (show_catalog, plan_catalog, apply_catalog)
