"""What the house asks of a gateway: charge under our key, and say later what became of a key.

The key is the whole contract. Asking twice with one key charges once, so an answer that was lost
can be asked for again, and the money moves once however often the network fails. Invariants: a
gateway is called outside any transaction; it is told no name, no address and no card number.
"""

from dataclasses import dataclass
from typing import Protocol

from convergio.kernel.money import Money


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One charge; `attempt` counts the tries for the same invoice, from 1."""

    idempotency_key: str
    token: str
    amount: Money
    description: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The money is on its way; the gateway keeps `fee` of it."""

    reference: str
    fee: Money


@dataclass(frozen=True, slots=True)
class Declined:
    """The bank said no. `hard`: it will say no to this method for ever."""

    reference: str
    code: str
    hard: bool


@dataclass(frozen=True, slots=True)
class RequiresAction:
    """The customer has to confirm with their bank first; nobody has failed (PSD2, SCA)."""

    reference: str


ChargeResult = Succeeded | Declined | RequiresAction


class Gateway(Protocol):
    """A processor of payments."""

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Charge once a key, however often it is asked.

        Raises: OutcomeUnknown when no answer came; Conflict when the key was used for another
        charge.
        """
        ...

    def find(self, idempotency_key: str) -> ChargeResult | None:
        """Return what became of the key, or None when the gateway has never seen it.

        Raises: OutcomeUnknown when no answer came.
        """
        ...
