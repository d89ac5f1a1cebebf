"""A small processor with test tokens, so that the whole of payments runs without a network.

It is a party of its own that happens to live in this database: its own schema, its own
transactions, its own clock. It answers the same for the same key for ever, and its tokens make
each thing happen that a real processor does to one: decline, ask for the customer, take the money
and lose the answer, lose the question.

Invariants: one key is one charge; a charge that succeeded never changes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Final

from convergio.infra import sql
from convergio.infra.clock import Clock
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Conflict, OutcomeUnknown, require
from convergio.kernel.money import Amount, Money
from convergio.payments.gateways.protocol import (
    ChargeRequest,
    ChargeResult,
    Declined,
    RequiresAction,
    Succeeded,
)

FEE_SHARE: Final = Fraction(29, 1000)
FEE_FIXED_MINOR: Final = 30
ACTION_EXPIRES_AFTER: Final = timedelta(hours=23)
"""2.9 % + 30 minor units, and the time that a customer has to confirm, as Stripe's are."""


class Token(StrEnum):
    """What a test pays with, named for what happens."""

    OK = "tok_ok"
    DECLINED = "tok_declined"
    STOLEN = "tok_stolen"
    REQUIRES_ACTION = "tok_requires_action"
    TIMEOUT_CHARGED = "tok_timeout_charged"
    TIMEOUT_LOST = "tok_timeout_lost"
    DECLINED_TWICE = "tok_declined_twice"


_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
_HARD: Final = frozenset({"stolen_card", "unknown_token"})
_DECLINES: Final = {Token.DECLINED.value: "insufficient_funds", Token.STOLEN.value: "stolen_card"}
_PATIENCE: Final = 2


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """One row of the processor's own book."""

    idempotency_key: str
    reference: str
    token: str
    amount: int
    currency: str
    outcome: str
    decline_code: str | None
    fee: int
    created_at: datetime


def fee_of(amount: Money) -> Money:
    """Return what the processor keeps. Rounds: half away from zero, then adds the fixed part."""
    share = Amount(Fraction(Decimal(amount.text())) * FEE_SHARE, amount.currency).round()
    return share + Money(FEE_FIXED_MINOR, amount.currency)


class Sandbox:
    """The processor: a `Gateway`, plus what a test's customer does at their bank."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Keep the book in `sandbox.charge` and read the processor's own clock."""
        self._database = database
        self._clock = clock
        self._lost: set[str] = set()

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Charge once a key. Raises: OutcomeUnknown for the time-out tokens, Conflict.

        `tok_timeout_lost` loses the first call of a key and hears the second.
        """
        require(request.amount.minor > 0, "a charge is above zero")
        if request.token == Token.TIMEOUT_LOST and request.idempotency_key not in self._lost:
            self._lost.add(request.idempotency_key)
            raise OutcomeUnknown("the sandbox did not answer; ask again for this key")
        wanted = self._decide(request)
        with self._database.transaction() as tx:
            fresh = _insert(tx, wanted)
            kept = fresh or _find(tx, request.idempotency_key)
        require(kept is not None, "the sandbox lost a charge")
        kept = kept or wanted
        if (kept.token, kept.amount, kept.currency) != (
            wanted.token,
            wanted.amount,
            wanted.currency,
        ):
            detail = "this idempotency key belongs to another charge; use a new one"
            raise Conflict(detail, code="idempotency_conflict")
        if fresh is not None and request.token == Token.TIMEOUT_CHARGED:
            raise OutcomeUnknown("the sandbox did not answer; ask again for this key")
        return _result(kept)

    def find(self, idempotency_key: str) -> ChargeResult | None:
        """Return what became of the key; a confirmation that came too late is a decline."""
        with self._database.transaction() as tx:
            kept = _find(tx, idempotency_key)
            if kept is not None and self._expired(kept):
                _settle(tx, kept, outcome="declined", code="authentication_expired", fee=0)
                kept = _find(tx, idempotency_key)
        return None if kept is None else _result(kept)

    def confirm(self, idempotency_key: str, *, accepted: bool = True) -> None:
        """Do what the customer does at their bank: confirm the charge, or refuse it.

        Raises: Conflict when the charge does not wait for them.
        """
        with self._database.transaction() as tx:
            kept = _find(tx, idempotency_key)
            if kept is None or kept.outcome != "requires_action" or self._expired(kept):
                detail = "this charge does not wait for its customer"
                raise Conflict(detail, code="nothing_to_confirm")
            if accepted:
                fee = fee_of(Money(kept.amount, kept.currency)).minor
                _settle(tx, kept, outcome="succeeded", code=None, fee=fee)
            else:
                _settle(tx, kept, outcome="declined", code="authentication_failed", fee=0)

    def _expired(self, kept: ChargeRow) -> bool:
        waiting = kept.outcome == "requires_action"
        return waiting and self._clock.now() >= kept.created_at + ACTION_EXPIRES_AFTER

    def _decide(self, request: ChargeRequest) -> ChargeRow:
        code = _DECLINES.get(request.token)
        if request.token not in frozenset(Token):
            code = "unknown_token"
        elif request.token == Token.DECLINED_TWICE and request.attempt <= _PATIENCE:
            code = "insufficient_funds"
        waits = request.token == Token.REQUIRES_ACTION
        outcome = "declined" if code else "requires_action" if waits else "succeeded"
        digest = blake2b(request.idempotency_key.encode(), digest_size=12).hexdigest()
        return ChargeRow(
            idempotency_key=request.idempotency_key,
            reference=f"ch_{digest}",
            token=request.token,
            amount=request.amount.minor,
            currency=request.amount.currency,
            outcome=outcome,
            decline_code=code,
            fee=fee_of(request.amount).minor if outcome == "succeeded" else 0,
            created_at=self._clock.now(),
        )


def _insert(tx: Tx, row: ChargeRow) -> ChargeRow | None:
    return tx.one(
        _QUERIES["insert_charge"],
        ChargeRow,
        idempotency_key=row.idempotency_key,
        reference=row.reference,
        token=row.token,
        amount=row.amount,
        currency=row.currency,
        outcome=row.outcome,
        decline_code=row.decline_code,
        fee=row.fee,
        created_at=row.created_at,
    )


def _find(tx: Tx, idempotency_key: str) -> ChargeRow | None:
    return tx.one(_QUERIES["find_charge"], ChargeRow, idempotency_key=idempotency_key)


def _settle(tx: Tx, row: ChargeRow, *, outcome: str, code: str | None, fee: int) -> None:
    tx.run(
        _QUERIES["settle_charge"],
        idempotency_key=row.idempotency_key,
        outcome=outcome,
        decline_code=code,
        fee=fee,
    )


def _result(row: ChargeRow) -> ChargeResult:
    if row.outcome == "succeeded":
        return Succeeded(row.reference, Money(row.fee, row.currency))
    if row.outcome == "requires_action":
        return RequiresAction(row.reference)
    code = row.decline_code or "declined"
    return Declined(row.reference, code, hard=code in _HARD)
