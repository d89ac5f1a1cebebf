"""What can go wrong between a caller and Convergio, as one tree.

    ClientError
    |-- Invalid            the call itself is wrong; nothing was stored or sent
    |-- Denied             the quota says no; `reason` says why, the body did not run
    |   |-- LimitReached   ... the plan's limit for this period is used up
    |   |-- Suspended      ... access is suspended until open invoices are paid
    |   |-- NoSubscription ... the customer has no live subscription
    |   `-- SpendCap       ... the cap on overage, in money, is reached
    |-- Rejected           the server refused it for good; sending it again changes nothing
    |   `-- SomeRejected   ... some events of `track_many`; the others are counted
    |-- Unauthorized       the key is missing, wrong or lacks a scope
    |-- Unavailable        no answer, or not now; the same call may be repeated
    |-- SpoolFull          the spool is at its limit and nothing was stored
    |-- SpoolBroken        the spool's file cannot be used
    `-- Closed             the client was closed

Invariant: an event that `track` did not raise for is either counted or still in the spool, or in
the spool's list of rejected ones with its reason.
"""

from collections.abc import Sequence
from datetime import datetime

from convergio_client.model import Refusal


class ClientError(Exception):
    """Anything that this client raises on purpose."""


class Invalid(ClientError):
    """The call itself is wrong."""


class Denied(ClientError):
    """The quota says no. A denial without a class of its own is a plain `Denied`."""

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        status: int = 403,
        resets_at: datetime | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """Keep the machine-readable reason and, where the server told it, when to come back."""
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.resets_at = resets_at
        self.retry_after_seconds = retry_after_seconds


class LimitReached(Denied):
    """The plan's limit for this period is used up."""


class Suspended(Denied):
    """Access is suspended until open invoices are paid."""


class NoSubscription(Denied):
    """The customer has no live subscription."""


class SpendCap(Denied):
    """The cap on overage, in money, is reached."""


class Rejected(ClientError):
    """The server refused it for good."""

    def __init__(
        self, code: str, detail: str = "", *, status: int = 422, field: str | None = None
    ) -> None:
        """Keep the server's stable code and the field that is wrong, where it named one."""
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.status = status
        self.field = field


class SomeRejected(Rejected):
    """Some of many events were refused for good; every other one is counted."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        """Keep which, and why; the error's own code is that of the first."""
        first = refusals[0]
        detail = f"{len(refusals)} of the events, first {first.id}: {first.detail}"
        super().__init__(first.reason, detail)
        self.refusals = tuple(refusals)


class Unauthorized(Rejected):
    """The key is missing, wrong or lacks a scope."""


class Unavailable(ClientError):
    """No answer, or not now; the same call may be repeated."""

    def __init__(self, why: str, *, retry_after_seconds: float | None = None) -> None:
        """Keep when the server wants to be asked again."""
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds


class SpoolFull(ClientError):
    """The spool is at its limit and nothing was stored."""


class SpoolBroken(ClientError):
    """The spool's file cannot be used."""


class Closed(ClientError):
    """The client was closed."""


DENIALS: dict[str, type[Denied]] = {
    "limit_reached": LimitReached,
    "suspended": Suspended,
    "no_subscription": NoSubscription,
    "spend_cap": SpendCap,
}
