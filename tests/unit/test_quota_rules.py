"""Decisions about quotas and leases without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.entitlements import rules
from convergio.entitlements.model import Access, Lease, Reason
from convergio.kernel.errors import Conflict
from convergio.kernel.money import Money
from convergio.metering.model import WindowRow
from convergio.rating.model import Tier, Unit, Volume

D = Decimal
NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
END = datetime(2025, 2, 1, tzinfo=UTC)
QUANTITIES = st.decimals(min_value=0, max_value=10**29, places=9)


def window(used: str = "0", reserved: str = "0", limit: str | None = "50") -> WindowRow:
    return WindowRow(
        customer_id=UUID(int=1),
        meter_id=1,
        start_at=datetime(2025, 1, 1, tzinfo=UTC),
        end_at=END,
        version=1,
        used=D(used),
        reserved=D(reserved),
        quota_limit=None if limit is None else D(limit),
        included=None,
    )


def lease(**other: object) -> Lease:
    found = Lease(
        customer_id=UUID(int=1),
        lease_id=UUID(int=2),
        meter_id=1,
        start_at=datetime(2025, 1, 1, tzinfo=UTC),
        end_at=END,
        granted=D(5),
        used=D(0),
        sequence=0,
        state="open",
        made_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
        settled_at=None,
    )
    return replace(found, **other)  # type: ignore[arg-type]  # any field, by name


@pytest.mark.parametrize(
    ("left", "wanted", "granted"),
    [
        ("50", "100", "5"),
        ("50", "2", "2"),
        ("19.9", "100", "1"),
        ("9", "100", "1"),
        ("1", "100", "1"),
        ("0.4", "100", "0.4"),
        ("0.4", "0.1", "0.1"),
        ("0", "100", "0"),
        (None, "100", "100"),
    ],
)
def test_a_slice_is_a_tenth_or_one_unit_or_the_rest(
    left: str | None, wanted: str, granted: str
) -> None:
    assert rules.slice_of(None if left is None else D(left), D(wanted)) == D(granted)


@given(QUANTITIES, QUANTITIES)
def test_a_slice_is_never_more_than_what_is_left_or_wanted(left: Decimal, wanted: Decimal) -> None:
    granted = rules.slice_of(left, wanted)
    assert 0 <= granted <= min(left, wanted)
    assert granted > 0 or not left or not wanted


def test_a_quota_names_the_first_reason_that_holds() -> None:
    full = window(used="50")
    cap = Money(100, "usd")
    for access, row, spend, reason in (
        (Access.NONE, full, cap, Reason.NO_SUBSCRIPTION),
        (Access.SUSPENDED, full, cap, Reason.SUSPENDED),
        (Access.FULL, full, cap, Reason.LIMIT_REACHED),
        (Access.GRACE, window(), cap, Reason.SPEND_CAP),
        (Access.GRACE, window(), Money(99, "usd"), None),
    ):
        assert rules.state(row, access, spend_cap=cap, spend=spend).reason == reason


def test_what_is_left_is_never_below_nothing() -> None:
    assert rules.remaining(window(used="60")) == 0
    assert rules.remaining(window(reserved="50"), stale=D(20)) == D(20)
    assert rules.remaining(window(used="10"), over=D(5)) == D(35)
    assert rules.remaining(window(limit=None)) is None


def test_overage_in_money_is_what_usage_adds_to_the_invoice() -> None:
    committed = Unit(unit="0.01", included="100", minimum="5.00")
    for quantity, cents in (("0", 0), ("100", 0), ("600", 0), ("601", 1), ("1600", 1000)):
        found = rules.overage_price(committed, D(quantity), currency="usd")
        assert found == Money(cents, "usd")
    volume = Volume(tiers=(Tier(up_to="10", unit="1"), Tier(unit="0.5")))
    assert rules.overage_price(volume, D(11), currency="usd") == Money(550, "usd")


def test_a_report_counts_within_the_lease_and_its_window() -> None:
    one = lease()
    tick = timedelta(microseconds=1)
    in_time, late = NOW + timedelta(seconds=30), NOW + timedelta(hours=3)
    assert rules.reported_at(one, window(), now=in_time) == in_time
    assert rules.reported_at(one, window(), now=late) == one.expires_at - tick
    cut = replace(window(), end_at=NOW + timedelta(seconds=10))
    assert rules.reported_at(one, cut, now=in_time) == cut.end_at - tick
    assert rules.reported_at(one, None, now=in_time) == in_time


def test_a_lease_holds_what_is_granted_and_not_reported_while_it_is_open() -> None:
    assert rules.held(lease()) == D(5)
    assert rules.held(rules.reported(lease(), used=D(3), sequence=1)) == D(2)
    assert rules.held(rules.reported(lease(), used=D(9), sequence=1)) == D(0)
    lost = rules.lose(lease(), now=NOW + timedelta(seconds=60))
    assert (lost.state, rules.held(lost)) == ("lost", D(0))
    with pytest.raises(Conflict):
        rules.lose(lease(), now=NOW)


def test_reports_go_up_in_number_and_in_sum() -> None:
    one = lease(used=D(3), sequence=2)
    assert rules.is_repeat(one, used=D(3), sequence=2)
    assert not rules.is_repeat(one, used=D(3), sequence=3)
    assert not rules.is_repeat(one, used=D(9), sequence=7)
    for used, sequence in (("4", 2), ("3", 1), ("3", 0), ("2", 3)):
        with pytest.raises(Conflict):
            rules.is_repeat(one, used=D(used), sequence=sequence)
    settled = rules.closed(one, "settled", used=D(3), sequence=3, now=NOW)
    assert rules.is_settled(settled, used=D(3))
    with pytest.raises(Conflict):
        rules.is_settled(settled, used=D(4))
