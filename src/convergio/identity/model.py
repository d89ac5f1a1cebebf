"""What an API key is, what it may do, and who a request comes from."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Scope(StrEnum):
    """One thing that a key may be allowed to do; every route names the one it asks for."""

    USAGE_WRITE = "usage:write"
    USAGE_READ = "usage:read"
    USAGE_IMPORT = "usage:import"
    USAGE_CORRECT = "usage:correct"
    QUOTA_WRITE = "quota:write"
    QUOTA_READ = "quota:read"
    CATALOG_WRITE = "catalog:write"
    CATALOG_READ = "catalog:read"
    CUSTOMERS_WRITE = "customers:write"
    CUSTOMERS_READ = "customers:read"
    SUBSCRIPTIONS_WRITE = "subscriptions:write"
    SUBSCRIPTIONS_READ = "subscriptions:read"
    INVOICES_READ = "invoices:read"
    BILLING_RUN = "billing:run"
    PAYMENTS_WRITE = "payments:write"
    PAYMENTS_READ = "payments:read"
    KEYS_WRITE = "keys:write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: enough to recognise and to name it, not enough to use it."""

    api_key_id: UUID
    name: str
    prefix: str
    last_four: str
    scopes: list[str]
    customer_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key at its birth: the only time at which its secret can be shown."""

    api_key: ApiKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. With a `customer_id` everything of any other customer does not exist."""

    api_key_id: UUID
    scopes: frozenset[Scope]
    customer_id: UUID | None
