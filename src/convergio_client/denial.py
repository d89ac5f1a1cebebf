"""What a guarded application answers instead of its own page: RFC 9457 problem documents.

Both middlewares answer through this module, so ASGI and WSGI say the same. A customer that the
billing does not know is forbidden here, not "not found": the page that was asked for exists.
"""

import json
import logging
import math
from datetime import datetime
from http import HTTPStatus
from typing import Final

from convergio_client import clock
from convergio_client.errors import ClientError, Denied

PERMIT_KEY: Final = "convergio.permit"
_DENIAL_STATUSES: Final = frozenset({402, 403, 429})
_RETRY_SECONDS: Final = 1.0
_log: Final = logging.getLogger("convergio_client")


def answer(error: ClientError, now: datetime) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
    """Return status, headers and body for a denial, or for a billing that cannot be asked."""
    document: dict[str, object] = {}
    if isinstance(error, Denied):
        known = error.status if error.status in _DENIAL_STATUSES else 403
        status, code, detail = HTTPStatus(known), error.reason, error.detail
        document["reason"] = error.reason
        wait = error.retry_after_seconds
        if error.resets_at is not None:
            document["resets_at"] = clock.text(error.resets_at)
            wait = max(0.0, (error.resets_at - now).total_seconds()) if wait is None else wait
    else:
        status, code = HTTPStatus.SERVICE_UNAVAILABLE, "quota_unavailable"
        detail = "the quota cannot be checked at the moment; try again"
        wait = _RETRY_SECONDS
        _log.error("a request was refused because its quota cannot be checked: %s", error)
    document = {
        "type": f"urn:convergio:{code}",
        "title": status.phrase,
        "status": status.value,
        "code": code,
        **({"detail": detail} if detail else {}),
        **document,
    }
    body = json.dumps(document).encode()
    headers = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]
    if wait is not None:
        headers.append(("retry-after", str(math.ceil(wait))))
    return status, headers, body
