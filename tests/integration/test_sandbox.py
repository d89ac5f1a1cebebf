"""The sandbox keeps a gateway's contract: one key is one charge, and its answer never changes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, OutcomeUnknown
from convergio.kernel.money import Money
from convergio.payments.gateways.protocol import (
    ChargeRequest,
    Declined,
    Gateway,
    RequiresAction,
    Succeeded,
)
from convergio.payments.gateways.sandbox import Sandbox


@pytest.fixture
def clock(now: datetime) -> VirtualClock:
    return VirtualClock(now)


@pytest.fixture
def sandbox(database: Database, clock: VirtualClock) -> Sandbox:
    return Sandbox(database, clock)


def asked(token: str, *, key: str = "pay_1", minor: int = 699, attempt: int = 1) -> ChargeRequest:
    return ChargeRequest(key, token, Money(minor, "usd"), "Invoice 1", attempt)


def charges(database: Database) -> int:
    with database.transaction() as tx:
        return int(tx.value("SELECT count(*) FROM sandbox.charge"))


def test_the_sandbox_is_a_gateway(sandbox: Sandbox) -> None:
    gateway: Gateway = sandbox
    assert gateway.find("pay_never") is None


@pytest.mark.parametrize(
    ("token", "attempt", "kind", "code", "hard"),
    [
        ("tok_ok", 1, Succeeded, None, False),
        ("tok_declined", 1, Declined, "insufficient_funds", False),
        ("tok_stolen", 1, Declined, "stolen_card", True),
        ("tok_requires_action", 1, RequiresAction, None, False),
        ("tok_declined_twice", 2, Declined, "insufficient_funds", False),
        ("tok_declined_twice", 3, Succeeded, None, False),
        ("tok_nobody_knows", 1, Declined, "unknown_token", True),
    ],
)
def test_each_token_does_what_it_is_named_for_and_the_same_again(
    sandbox: Sandbox, token: str, attempt: int, kind: type, code: str | None, *, hard: bool
) -> None:
    result = sandbox.charge(asked(token, attempt=attempt))
    assert isinstance(result, kind)
    if isinstance(result, Declined):
        assert (result.code, result.hard) == (code, hard)
    assert sandbox.charge(asked(token, attempt=attempt)) == result
    assert sandbox.find("pay_1") == result


def test_a_charge_tells_its_fee(sandbox: Sandbox) -> None:
    result = sandbox.charge(asked("tok_ok"))
    assert isinstance(result, Succeeded)
    assert result.fee == Money(50, "usd")  # 6.99 x 2.9 % = 0.20271, and 0.30


@pytest.mark.parametrize(
    "other", [asked("tok_ok", minor=700), asked("tok_declined"), asked("tok_stolen", minor=1)]
)
def test_a_key_cannot_be_used_for_another_charge(
    sandbox: Sandbox, database: Database, other: ChargeRequest
) -> None:
    first = sandbox.charge(asked("tok_ok"))
    with pytest.raises(Conflict):
        sandbox.charge(other)
    assert sandbox.find("pay_1") == first
    assert charges(database) == 1


def test_a_lost_answer_is_a_charge_and_a_lost_question_is_none(
    sandbox: Sandbox, database: Database
) -> None:
    with pytest.raises(OutcomeUnknown):
        sandbox.charge(asked("tok_timeout_charged", key="pay_1"))
    with pytest.raises(OutcomeUnknown):
        sandbox.charge(asked("tok_timeout_lost", key="pay_2"))
    assert isinstance(sandbox.find("pay_1"), Succeeded)
    assert sandbox.find("pay_2") is None
    assert charges(database) == 1
    assert isinstance(sandbox.charge(asked("tok_timeout_charged", key="pay_1")), Succeeded)
    assert isinstance(sandbox.charge(asked("tok_timeout_lost", key="pay_2")), Succeeded)
    assert charges(database) == 2


def test_one_key_is_charged_once_by_many_callers_at_once(
    sandbox: Sandbox, database: Database
) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = set(threads.map(lambda _: sandbox.charge(asked("tok_ok")), range(32)))
    assert len(results) == 1
    assert charges(database) == 1


def test_the_customer_confirms_once_and_in_time(sandbox: Sandbox, clock: VirtualClock) -> None:
    for key in ("pay_1", "pay_2", "pay_3"):
        sandbox.charge(asked("tok_requires_action", key=key))
    sandbox.confirm("pay_1")
    sandbox.confirm("pay_2", accepted=False)
    assert isinstance(sandbox.find("pay_1"), Succeeded)
    refused = sandbox.find("pay_2")
    assert isinstance(refused, Declined)
    assert (refused.code, refused.hard) == ("authentication_failed", False)
    clock.advance_to(clock.now() + timedelta(hours=23))
    for key in ("pay_1", "pay_2", "pay_3", "pay_4"):
        with pytest.raises(Conflict):
            sandbox.confirm(key)
    expired = sandbox.find("pay_3")
    assert isinstance(expired, Declined)
    assert expired.code == "authentication_expired"
    assert isinstance(sandbox.find("pay_1"), Succeeded)
