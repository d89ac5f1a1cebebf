"""Assemble the HTTP server of one process."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from convergio.api import problems
from convergio.api.agreement_routes import AGREEMENT_ROUTES
from convergio.api.billing_routes import BILLING_ROUTES
from convergio.api.catalog_routes import CATALOG_ROUTES
from convergio.api.coupon_routes import COUPON_ROUTES
from convergio.api.customer_routes import CUSTOMER_ROUTES
from convergio.api.document import Described, operation_id
from convergio.api.document_routes import DOCUMENT_ROUTES
from convergio.api.grant_routes import GRANT_ROUTES
from convergio.api.hot import HotPath
from convergio.api.limiting import Limits
from convergio.api.quota_routes import QUOTA_ROUTES
from convergio.api.receipt_routes import RECEIPT_ROUTES
from convergio.api.requests import needs
from convergio.api.routes import ROUTES
from convergio.api.security import guard, tell_standing
from convergio.api.subscription_routes import SUBSCRIPTION_ROUTES
from convergio.identity.model import Scope
from convergio.infra.settings import load_settings
from convergio.wiring import App, opened

BODY_SIZE_MAX: Final = 1_000_000
# One router holds them all: the framework prepares a handler anew for each later one on its path.
ALL_ROUTES: Final = (
    *ROUTES,
    *CATALOG_ROUTES,
    *CUSTOMER_ROUTES,
    *DOCUMENT_ROUTES,
    *SUBSCRIPTION_ROUTES,
    *QUOTA_ROUTES,
    *BILLING_ROUTES,
    *RECEIPT_ROUTES,
    *AGREEMENT_ROUTES,
    *COUPON_ROUTES,
    *GRANT_ROUTES,
)


def inside(
    product: App,
    limits: Limits | None = None,
    **more: Any,  # noqa: ANN401 - Litestar's own options
) -> Litestar:
    """Return the framework's part, without the hot path."""
    return Litestar(
        route_handlers=[Router("/", route_handlers=ALL_ROUTES)],
        guards=[guard],
        exception_handlers={Exception: problems.answer, HTTPException: problems.answer},
        request_max_body_size=BODY_SIZE_MAX,
        before_send=[tell_standing],
        state=State({"product": product, "limits": limits or Limits(product.settings)}),
        openapi_config=OpenAPIConfig(
            title="Convergio Billing",
            version="1",
            operation_id_creator=operation_id,
            use_handler_docstrings=True,
            render_plugins=[Described()],  # the others load scripts from elsewhere
            openapi_router=Router(
                "/schema",
                route_handlers=[],
                opt=needs(Scope.CATALOG_READ),
                include_in_schema=False,
            ),
        ),
        logging_config=None,
        **more,
    )


def create(product: App) -> HotPath:
    """Return the whole API around an open product; closing both is the caller's."""
    limits = Limits(product.settings)
    return HotPath(product, inside(product, limits), limits)


def factory() -> HotPath:
    """Open the product from the environment, for a server process; it closes with the process."""
    stack = ExitStack()
    product = stack.enter_context(opened(load_settings(os.environ)))

    @asynccontextmanager
    async def closing(_: Litestar) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(product.settings.pool_size, thread_name_prefix="route")
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            yield
        finally:
            served.close()
            stack.close()

    limits = Limits(product.settings)
    served = HotPath(product, inside(product, limits, lifespan=[closing]), limits)
    return served
