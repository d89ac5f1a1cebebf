"""What follows from a gateway's answer: states, dates, standing; and what is no token."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from convergio.billing.model import Status as InvoiceStatus
from convergio.kernel.errors import Fault, Invalid, Unavailable
from convergio.kernel.money import Money
from convergio.payments import rules
from convergio.payments.gateways.protocol import Declined, RequiresAction, Succeeded
from convergio.payments.gateways.sandbox import fee_of
from convergio.payments.model import (
    DUNNING,
    PENDING,
    TRANSITIONS,
    Attempt,
    AttemptState,
    Collection,
    CollectionState,
    Tally,
)
from convergio.subscriptions.model import Status
from tests.fakes import documents

NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SOFT = Declined("ch_1", "insufficient_funds", hard=False)
HARD = Declined("ch_1", "stolen_card", hard=True)
PAID = Succeeded("ch_1", Money(50, "usd"))
ACTION = RequiresAction("ch_1")


def collection(state: CollectionState = CollectionState.DUE) -> Collection:
    return Collection(
        customer_id=UUID(int=1),
        invoice_id=UUID(int=2),
        state=state,
        attempts=1,
        failures=0,
        first_failed_at=None,
        next_at=None,
    )


def attempt(state: AttemptState = AttemptState.INTENT) -> Attempt:
    return Attempt(
        customer_id=UUID(int=1),
        attempt_id=UUID(int=3),
        invoice_id=UUID(int=2),
        number=1,
        payment_method_id=UUID(int=4),
        gateway="sandbox",
        amount=699,
        currency="usd",
        state=state,
        decline_code=None,
        gateway_reference=None,
        fee=None,
        made_at=NOW,
        settled_at=None,
    )


def after(result: Succeeded | Declined | RequiresAction, start: Collection) -> Collection:
    return rules.answered(start, result, now=NOW, schedule=DUNNING)


def failing(days: float, failures: int) -> Collection:
    """Return a collection whose first failure was some days ago."""
    first = NOW - timedelta(days=days)
    return replace(collection(), attempts=failures, failures=failures, first_failed_at=first)


def test_the_steps_of_the_schedule_are_counted_from_the_first_failure() -> None:
    dates: list[float] = []
    current, now = collection(), NOW
    while True:
        current = rules.answered(rules.claimed(current), SOFT, now=now, schedule=DUNNING)
        if current.next_at is None:
            break
        dates.append((current.next_at - NOW) / DAY)
        now = current.next_at
    assert dates == [1, 3, 5, 7]
    assert current.state == CollectionState.EXHAUSTED
    assert (current.failures, current.first_failed_at) == (5, NOW)


def test_a_late_pass_does_not_fire_the_missed_steps_at_once() -> None:
    assert after(SOFT, failing(30, 1)).next_at == NOW + DAY


def test_a_hard_decline_waits_for_a_new_method_until_the_schedule_ends() -> None:
    waiting = after(HARD, collection())
    assert waiting.state == CollectionState.WAITING_FOR_METHOD
    assert waiting.next_at == NOW + 7 * DAY
    ended = rules.without_method(waiting, overdue=NOW, now=NOW + 7 * DAY, schedule=DUNNING)
    assert (ended.state, ended.next_at) == (CollectionState.EXHAUSTED, None)


def test_a_missing_method_is_a_failure_only_once_the_invoice_is_overdue() -> None:
    overdue = NOW + 14 * DAY
    waiting = rules.without_method(collection(), overdue=overdue, now=NOW, schedule=DUNNING)
    assert (waiting.first_failed_at, waiting.next_at) == (None, overdue)
    assert rules.standing(Status.ACTIVE, [waiting]) == Status.ACTIVE
    late = rules.without_method(waiting, overdue=overdue, now=overdue, schedule=DUNNING)
    assert (late.first_failed_at, late.next_at) == (overdue, overdue + 7 * DAY)
    assert rules.standing(Status.ACTIVE, [late]) == Status.PAST_DUE


def test_an_invoice_is_overdue_when_its_last_day_has_ended() -> None:
    assert rules.overdue_at(date(2025, 1, 31)) == datetime(2025, 2, 1, tzinfo=UTC)


def test_a_question_to_the_customer_is_not_a_failure() -> None:
    asked = after(ACTION, collection())
    assert (asked.state, asked.failures, asked.first_failed_at) == ("requires_action", 0, None)
    assert rules.standing(Status.ACTIVE, [asked]) == Status.ACTIVE


def test_a_payment_ends_the_collection_whatever_failed_before() -> None:
    paid = after(PAID, failing(3, 2))
    assert (paid.state, paid.next_at) == (CollectionState.PAID, None)


def test_a_new_method_reopens_what_waited_and_forgets_no_failure() -> None:
    exhausted = replace(failing(8, 5), state=CollectionState.EXHAUSTED)
    assert rules.wants_method(exhausted)
    again = rules.reopened(exhausted, now=NOW)
    assert (again.state, again.next_at, again.failures) == (CollectionState.DUE, NOW, 5)
    assert after(SOFT, rules.claimed(again)).state == CollectionState.EXHAUSTED
    assert not rules.wants_method(collection(CollectionState.REQUIRES_ACTION))
    assert not rules.wants_method(collection())


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (Status.ACTIVE, Status.PAST_DUE),
        (Status.PAST_DUE, Status.PAST_DUE),
        (Status.UNPAID, Status.UNPAID),
        (Status.TRIALING, Status.TRIALING),
        (Status.PAUSED, Status.PAUSED),
        (Status.CANCELED, Status.CANCELED),
        (Status.INCOMPLETE, Status.INCOMPLETE),
    ],
)
def test_a_failing_invoice_makes_its_customer_past_due(current: Status, expected: Status) -> None:
    paid = collection(CollectionState.PAID)
    assert rules.standing(current, [paid, failing(1, 1)]) == expected


def test_one_paid_invoice_does_not_hide_another_that_fails() -> None:
    paid = replace(failing(1, 1), state=CollectionState.PAID)
    exhausted = replace(failing(9, 5), state=CollectionState.EXHAUSTED)
    assert rules.standing(Status.PAST_DUE, [paid]) == Status.ACTIVE
    assert rules.standing(Status.PAST_DUE, [paid, exhausted]) == Status.UNPAID
    assert rules.standing(Status.UNPAID, [paid]) == Status.ACTIVE
    assert rules.standing(Status.INCOMPLETE, [paid]) == Status.ACTIVE
    assert rules.standing(Status.INCOMPLETE, []) == Status.INCOMPLETE


def test_a_void_invoice_is_closed_and_not_paid() -> None:
    assert rules.closed(collection(), InvoiceStatus.VOID).state == CollectionState.CLOSED
    assert rules.closed(collection(), InvoiceStatus.PAID).state == CollectionState.PAID


def test_a_settled_attempt_never_changes_again() -> None:
    paid = rules.settled(attempt(), PAID, now=NOW)
    assert (paid.state, paid.fee, paid.settled_at) == (AttemptState.SUCCEEDED, 50, NOW)
    for result in (PAID, SOFT, ACTION):
        with pytest.raises(Fault):
            rules.settled(paid, result, now=NOW)
    with pytest.raises(Fault):
        rules.unanswered(paid)


def test_only_a_dropped_attempt_takes_an_answer_that_comes_late() -> None:
    gone = rules.dropped(attempt(), now=NOW)
    for result in (PAID, ACTION, None):
        back = rules.awaited(gone, result)
        assert back == replace(attempt(), state=AttemptState.UNKNOWN)
        assert rules.awaited(attempt(), result) == attempt()
        for answer in (PAID, SOFT):
            assert rules.awaited(rules.settled(attempt(), answer, now=NOW), result) is None
    assert rules.awaited(gone, SOFT) is None


def test_a_collection_is_settled_by_what_leaves_nothing_to_ask_for() -> None:
    ended = replace(failing(9, 5), state=CollectionState.EXHAUSTED, next_at=None)
    for status, state in (
        (InvoiceStatus.PAID, CollectionState.PAID),
        (InvoiceStatus.VOID, CollectionState.CLOSED),
        (InvoiceStatus.OPEN, CollectionState.EXHAUSTED),
        (InvoiceStatus.UNCOLLECTIBLE, CollectionState.EXHAUSTED),
    ):
        invoice = replace(documents.invoice(documents.line(699)).invoice, status=status)
        assert rules.settled_elsewhere(ended, invoice).state == state


def test_every_pending_state_has_a_way_out() -> None:
    for state in AttemptState:
        assert bool(TRANSITIONS[state]) == (state in PENDING)
    for state in (AttemptState.UNKNOWN, AttemptState.REQUIRES_ACTION):
        assert rules.settled(attempt(state), SOFT, now=NOW).decline_code == "insufficient_funds"


@pytest.mark.parametrize(
    ("gateway", "token", "brand", "last_four", "field"),
    [
        ("sandbox", "4242424242424242", None, None, "token"),
        ("sandbox", "tok_4242-4242-4242-4242", None, None, "token"),
        ("sandbox", "tok_ok", "4242424242424242", None, "brand"),
        ("sandbox", "tok_ok", None, "4242424242424242", "last_four"),
        ("sandbox", "tok_ok", None, "42", "last_four"),
        ("sandbox", "tok_ok", None, "\u0664242", "last_four"),
        ("sandbox", "tok_ok", "vi\nsa", None, "brand"),
        ("", "tok_ok", None, None, "gateway"),
        ("sandbox", "", None, None, "token"),
        ("sandbox", "tok\x00", None, None, "token"),
        ("sandbox", "t" * 201, None, None, "token"),
        ("sandbox", "tok\n", None, None, "token"),
    ],
)
def test_a_method_that_is_no_token_is_refused_by_field_and_never_repeated(
    gateway: str, token: str, brand: str | None, last_four: str | None, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        rules.check_method(gateway=gateway, token=token, brand=brand, last_four=last_four)
    assert refused.value.field == field
    assert "4242" not in str(refused.value).replace("such as 4242", "")


def test_a_brand_of_two_words_is_a_brand() -> None:
    rules.check_method(
        gateway="sandbox", token="tok_ok", brand="American Express", last_four="0005"
    )


@pytest.mark.parametrize(
    ("minor", "currency", "fee"),
    [(699, "usd", 50), (1000, "usd", 59), (1, "usd", 30), (50, "usd", 31), (500, "jpy", 45)],
)
def test_the_sandbox_keeps_its_share_rounded_half_away_from_zero_and_thirty(
    minor: int, currency: str, fee: int
) -> None:
    assert fee_of(Money(minor, currency)) == Money(fee, currency)


def test_a_problem_of_one_invoice_is_told_and_a_bug_goes_on() -> None:
    tally = Tally()

    def fail(error: Exception) -> None:
        with tally.watching("inv_1"):
            raise error

    fail(Unavailable("try again"))
    assert tally.report().problems == ("inv_1: try again",)
    with pytest.raises(Fault):
        fail(Fault("a bug"))
