"""The client of Convergio Billing: httpx only, and nothing of the server.

`Convergio` blocks, `AsyncConvergio` awaits; `ConvergioMiddleware` (ASGI) and `ConvergioWSGI` put a
quota on a whole application. The errors are drawn as a tree in `convergio_client.errors`.
"""

from convergio_client.aio import AsyncConvergio
from convergio_client.client import Convergio
from convergio_client.errors import (
    ClientError,
    Closed,
    Denied,
    Invalid,
    LimitReached,
    NoSubscription,
    Rejected,
    SomeRejected,
    SpendCap,
    SpoolBroken,
    SpoolFull,
    Suspended,
    Unauthorized,
    Unavailable,
)
from convergio_client.lease import Lease
from convergio_client.middleware import ConvergioMiddleware
from convergio_client.model import (
    Backlog,
    Event,
    Permit,
    Quantity,
    Quota,
    Refusal,
    Rejection,
    Usage,
)
from convergio_client.spool import Spool
from convergio_client.wsgi import ConvergioWSGI

__all__ = [
    "AsyncConvergio",
    "Backlog",
    "ClientError",
    "Closed",
    "Convergio",
    "ConvergioMiddleware",
    "ConvergioWSGI",
    "Denied",
    "Event",
    "Invalid",
    "Lease",
    "LimitReached",
    "NoSubscription",
    "Permit",
    "Quantity",
    "Quota",
    "Refusal",
    "Rejected",
    "Rejection",
    "SomeRejected",
    "SpendCap",
    "Spool",
    "SpoolBroken",
    "SpoolFull",
    "Suspended",
    "Unauthorized",
    "Unavailable",
    "Usage",
]
