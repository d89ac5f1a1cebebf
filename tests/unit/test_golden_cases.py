"""The peers' own cases that concern rating, proration, changes, credit, runs and the calendar.

They are read from `../shared/cases/golden.json`. Every case is either checked here or skipped by
name with the reason: another convention than RULES.md, or a room that comes later.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final

import pytest

from convergio.cli.rate import answer
from convergio.kernel.money import Amount, Money, allocate
from convergio.kernel.periods import Calendar, Interval, Period, local, zone
from convergio.rating import owed, proration, rate
from tests.fakes import peer_changes, peer_discounts
from tests.fakes.peer_changes import Case, charge, day, major, share_of, usd

FILE: Final = Path(__file__).parents[2].parent / "shared" / "cases" / "golden.json"
CASES: Final[list[Case]] = json.loads(FILE.read_bytes()) if FILE.exists() else []


def flat_cents(cents: int, share: Fraction | None = None) -> int:
    return usd("flat", 1, share, amount=major(cents)).total.minor


def decimal(money: Money) -> Decimal:
    return Decimal(money.text())


def tiers_of(inputs: Case) -> list[Case]:
    """Write a peer's tiers, pairs or ranges as ours: inclusive ends, the last one open."""
    if "ranges" in inputs:
        rows = [
            {"up_to": row["to"]} | {key: row[key] for key in row.keys() - {"from", "to"}}
            for row in inputs["ranges"]
        ]
        rows = [{key.replace("rate_", ""): row[key] for key in row} for row in rows]
    elif "tiers_usd" in inputs or isinstance(inputs["tiers"][0], list):
        pairs = inputs.get("tiers_usd") or inputs["tiers"]
        rows = [{"up_to": end, "unit": unit} for end, unit in pairs]
    else:
        rows = inputs["tiers"]
    texts = [{key: None if row[key] is None else str(row[key]) for key in row} for row in rows]
    return [*texts[:-1], texts[-1] | {"up_to": None}]


# --- rating ---------------------------------------------------------------------------------------


def tiered(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    quantity = inputs.get("quantity", inputs.get("units"))
    model = inputs.get("model") or inputs.get("mode") or "graduated"
    rated = usd(model, quantity, tiers=tiers_of(inputs))
    wanted = [expected[key] for key in ("total", "amount", "amount_usd") if key in expected]
    assert [decimal(rated.total)] == [Decimal(text) for text in wanted]
    if "lines" in expected:
        assert [decimal(line.amount) for line in rated.lines] == list(
            map(Decimal, expected["lines"])
        )


def tiered_cents(case: Case) -> None:
    inputs = case["inputs"]
    tiers = [row | {"unit": major(row["unit"])} for row in tiers_of(inputs)]
    rated = usd(inputs["mode"], inputs["quantity"], tiers=tiers)
    assert rated.total.minor == case["expected"]["amount_cents"]


def tiered_split(case: Case) -> None:
    inputs = case["inputs"]
    graduated = charge("graduated", tiers=inputs["tiers"])
    before = Decimal(inputs["quantity_before_line"])
    after = before + Decimal(inputs["quantity_in_line"])
    line = owed(graduated, after, currency="usd") - owed(graduated, before, currency="usd")
    assert line.value == Fraction(case["expected"]["line_total"])


def capped_and_billed(case: Case) -> None:
    inputs = case["inputs"]
    quantity = int(inputs["quantity_before_line"]) + int(inputs["quantity_in_line"])
    priced = {key: inputs[key] for key in ("model", "tiers")}
    request = {"charge": priced | {"maximum": inputs["maximum_amount"]}, "currency": "usd"}
    found = answer(request | {"quantity": str(quantity), "billed": inputs["previously_billed"]})
    assert Decimal(found["total"]) == Decimal(case["expected"]["line_total"])


def tier_found(case: Case) -> None:
    rated = usd("volume", case["inputs"]["quantity"], tiers=case["inputs"]["tiers"])
    assert rated.lines[0].description.startswith(f"Tier {case['expected']['tier_index'] + 1} ")


def package(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    size, price = str(inputs["package_size"]), inputs["package_price"]
    rated = usd("package", inputs["quantity"], package_size=size, package_price=price)
    assert decimal(rated.total) == Decimal(expected["total"])
    if "packages" in expected:
        assert rated.lines[0].quantity == expected["packages"]


def packages(case: Case) -> None:
    inputs = case["inputs"]
    size, price = str(inputs["package_size"]), inputs["price"]
    totals = [
        usd("package", units, package_size=size, package_price=price).total.text()
        for units in inputs["units"]
    ]
    assert totals == case["expected"]["amounts"]


def zero_line(case: Case) -> None:
    rated = usd("package", case["inputs"]["usage"], package_size="100", package_price="2.95")
    assert [line.amount.text() for line in rated.lines] == [case["expected"]["amount"]]


def bounded_unit(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    bounds = {key: inputs.get(f"{key}_amount") for key in ("minimum", "maximum")}
    rated = usd("unit", inputs["quantity"], unit=inputs["unit_price"], **bounds)
    assert decimal(rated.total) == Decimal(expected["total"])


def tier_cap(case: Case) -> None:
    only = case["inputs"]["tiers_first_unit"][0]
    rated = usd("unit", case["inputs"]["quantity"], unit=only["unit"], maximum=only["cap"])
    assert decimal(rated.total) == Decimal(case["expected"]["total"])


def true_up(case: Case) -> None:
    inputs = case["inputs"]
    rated = usd("unit", 1, unit=inputs["used"], minimum=inputs["commitment"])
    assert rated.lines[-1].description == "Minimum"
    assert rated.lines[-1].amount.text() == case["expected"]["true_up"]


def included(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    unit = charge("unit", unit="1", included=inputs["included_units"])
    before = Decimal(inputs["quantity_before_line"])
    whole = before + Decimal(inputs["quantity_in_line"])
    first, both = (owed(unit, each, currency="usd").value for each in (before, whole))
    assert first == Fraction(expected["billable_before_line"])
    assert both - first == Fraction(expected["billable_in_line"])


def included_kept(case: Case) -> None:
    inputs, price = case["inputs"], major(case["inputs"]["unit_cents"])
    rated = usd(
        "unit", inputs["consumed_units"], unit=price, included=str(inputs["included_units"])
    )
    assert rated.total.minor == case["expected"]["amount_cents"]


def percentage(case: Case) -> None:
    inputs = case["inputs"]
    priced = charge("percentage", percent=inputs["rate_percent"])
    exact = owed(priced, Decimal(inputs["quantity"]), currency="usd")
    assert exact.value == Fraction(case["expected"]["total"])


def unit_cents(case: Case) -> None:
    inputs = case["inputs"]
    cap = None if inputs["cap_cents"] is None else major(inputs["cap_cents"])
    rated = usd("unit", inputs["units"], unit=major(inputs["unit_amount_cents"]), maximum=cap)
    assert rated.total.minor == case["expected"]["amount_cents"]


def unit_price(case: Case) -> None:
    inputs = case["inputs"]
    priced = charge("unit", unit=inputs["unit_price"])
    rated = rate(priced, Decimal(inputs["quantity"]), currency=inputs["currency"])
    assert rated.total.text() == case["expected"]["amount"]


def price_versions(case: Case) -> None:
    totals: dict[int, int] = {}
    for event in case["inputs"]["events"]:
        totals[event["unit_cents"]] = totals.get(event["unit_cents"], 0) + event["value"]
    lines = [usd("unit", used, unit=major(cents)).total.minor for cents, used in totals.items()]
    assert lines == case["expected"]["lines"]


# --- rounding and allocation ----------------------------------------------------------------------


def rounding(case: Case) -> None:
    amount = Amount(Fraction(case["inputs"]["amount"]), case["inputs"]["currency"])
    assert amount.round().text() == case["expected"]["rounded"]


def rounding_sum(case: Case) -> None:
    inputs, lines = case["inputs"], case["inputs"]["line_amounts"]
    texts = [lines["repeat"]] * lines["count"] if isinstance(lines, dict) else lines
    rounded = [Amount(Fraction(text), inputs["currency"]).round() for text in texts]
    total = sum(rounded, Money.zero(inputs["currency"]))
    assert total.text() == case["expected"]["subtotal"]


def credit_rounding(case: Case) -> None:
    amount = Amount(Fraction(case["inputs"]["credits"]), case["inputs"]["currency"].lower())
    assert amount.round().minor == case["expected"]["invoice_cents"]


def allocation(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    lines = inputs["line_amounts_cents"]
    split = allocate(Money(min(inputs["fixed_discount_cents"], sum(lines)), "usd"), lines)
    assert [part.minor for part in split] == expected["allocated_cents"]


def coupon_split(case: Case) -> None:
    fees = [fee for fee, _ in case["inputs"]["fees_cents"].values()]
    split = allocate(Money(case["inputs"]["coupon_cents"], "usd"), fees)
    assert [part.minor for part in split] == case["expected"]["coupon_split"]


def discounted_lines(case: Case) -> None:
    lines = case["inputs"]["lines_cents"]
    split = allocate(Money(case["inputs"]["discount_cents"], "usd"), lines)
    left = [line - part.minor for line, part in zip(lines, split, strict=True)]
    assert left == case["expected"]["taxable_cents"]


# --- proration ------------------------------------------------------------------------------------


def plan_change(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    full = (inputs["period_start"], inputs["period_end"])
    share = share_of(full, (inputs["change_at"], inputs["period_end"]))
    same = inputs["old_interval"] == inputs["new_interval"]
    assert flat_cents(inputs["old_price_cents"], share) == expected["credit_cents"]
    debit = flat_cents(inputs["new_price_cents"], share if same else None)
    assert debit == expected["debit_cents"]
    if not same:
        start = day(inputs["change_at"])
        period = Calendar(start, "UTC", Interval(inputs["new_interval"])).period(0)
        assert period.start == day(expected["new_period_start"])
        assert period.end == day(expected["new_period_end"])


def half_change(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    share = Fraction(
        inputs.get("factor") or Fraction(inputs["remaining_seconds"], inputs["total_seconds"])
    )
    old = inputs.get("old_price_cents", inputs.get("old_cents"))
    new = inputs.get("new_price_cents", inputs.get("new_cents"))
    assert flat_cents(old, share) == abs(expected["credit_cents"])
    assert flat_cents(new, share) == expected["debit_cents"]
    assert flat_cents(new, share) - flat_cents(old, share) == expected["net_cents"]


def components(case: Case) -> None:
    inputs = case["inputs"]
    share = share_of(inputs["period"], (inputs["change_date"], inputs["period"][1]))
    old, new = inputs["matched"]
    coming = [new, *inputs["added"]]
    going = [old, *inputs["removed"]]
    bills = [usd("flat", 1, share, amount=amount).total.minor for amount in coming]
    refunds = [usd("flat", 1, share, amount=amount).total.minor for amount in going]
    assert len(bills) + len(refunds) == case["expected"]["lines"]
    assert sum(bills) - sum(refunds) == case["expected"]["net_cents"]


def factor(case: Case) -> None:
    share = share_of(case["inputs"]["full_period"], case["inputs"]["service_period"])
    assert share == Fraction(case["expected"]["factor"])
    assert usd("flat", 1, share, amount="20").total.minor == 0


def seats(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    share = share_of(
        (inputs["period_start"], inputs["period_end"]),
        (inputs["seat_change_at"], inputs["period_end"]),
    )
    price = major(inputs["current_price_per_seat_cents"])
    more = usd("seat", inputs["new_seats"] - inputs["old_seats"], share, unit=price)
    assert more.total.minor == expected["entry_cents"]
    price = major(inputs["scheduled_next_period_price_per_seat_cents"])
    later = usd("seat", inputs["new_seats"], unit=price)
    assert later.total.minor == expected["post_cycle_subscription_amount_cents"]


def cycles(case: Case) -> None:
    """Count periods and parts of periods, billed in advance, from the start to end or target."""
    inputs = case["inputs"]
    months = Calendar(day(f"{inputs['start'][:4]}-01-{inputs['bcd']:02d}"), "UTC", Interval.MONTH)
    start, target = day(inputs["start"]), day(inputs["target"])
    end = day(inputs["end"]) if inputs["end"] else months.period(months.number_at(target)).end
    count = Fraction(0)
    for number in range(months.number_at(start), months.number_at(end) + 1):
        period = months.period(number)
        served = period.overlap(Period(start, end))
        count += proration(period, served) if served else 0
    exact = Decimal(count.numerator) / Decimal(count.denominator)
    found = exact.quantize(Decimal("1e-9"), ROUND_HALF_UP)
    assert f"{found:f}" == case["expected"]["number_of_cycles"]


def pause(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    resumed = expected["resume_invoice"]
    unused = share_of(inputs["period"], (inputs["pause"], inputs["period"][1]))
    assert usd("flat", 1, unused, amount=inputs["price"]).total.text() == expected["credit"]
    next_full = (inputs["period"][1], resumed["period"][1])
    served = share_of(next_full, resumed["period"])
    assert usd("flat", 1, served, amount=inputs["price"]).total.text() == resumed["recurring"]


def blocked(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    calendar = Calendar(day("2012-01-31"), "UTC", Interval.MONTH)
    start, end = map(day, inputs["blocked"])
    share = proration(calendar.period(calendar.number_at(start)), Period(start, end))
    assert "-" + usd("flat", 1, share, amount=inputs["price"]).total.text() == expected["repair"]


# --- calendar -------------------------------------------------------------------------------------


def containing(anchor: datetime, interval: str, at: datetime, time_zone: str = "UTC") -> Period:
    calendar = Calendar(anchor, time_zone, Interval(interval))
    return calendar.period(calendar.number_at(at))


def period_at(case: Case) -> None:
    inputs = case["inputs"]
    anchor = day(inputs.get("anchor") or inputs["start"])
    found = containing(anchor, inputs["interval"], day(inputs["at"]))
    if "period" in case["expected"]:
        assert found == Period(*map(day, case["expected"]["period"]))
    else:
        assert found.start == day(case["expected"]["value"])


def inclusive_period(case: Case) -> None:
    inputs = case["inputs"]
    anchor = day(inputs["start"][:10])
    found = containing(anchor, inputs["interval"], day(inputs["bill_on"]) - timedelta(days=1))
    start, last_second = map(day, case["expected"]["period"])
    assert found == Period(start, last_second + timedelta(seconds=1))


def elapsed(case: Case) -> None:
    inputs = case["inputs"]
    calendar = Calendar(day(inputs["start"]), "UTC", Interval(inputs["interval"]))
    assert calendar.number_at(day(inputs["target"])) == case["expected"]["cycles"]


def next_boundary(case: Case) -> None:
    inputs = case["inputs"]
    calendar = Calendar(day(inputs["anchor"]), inputs["timezone"], Interval(inputs["interval"]))
    assert calendar.boundary(inputs["count"]) == day(case["expected"]["next"])


def next_reset(case: Case) -> None:
    inputs = case["inputs"]
    found = containing(day(inputs["anchor"]), "month", day(inputs["now"]), inputs["timezone"])
    assert found.end == day(case["expected"]["next_reset"])


def cycle_end(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    three = inputs["interval"] == "month" and inputs["count"] == 3
    interval = "quarter" if three else inputs["interval"]
    found = containing(day(inputs["anchor"]), interval, day(inputs["now"])).end
    if "cycle_end" in expected:
        assert found == day(expected["cycle_end"])
    else:
        assert found.date().isoformat() == expected["cycle_end_date"]


def moved(case: Case) -> None:
    inputs = case["inputs"]
    calendar = Calendar(day(inputs["from"]), "UTC", Interval(inputs["interval"]))
    assert calendar.boundary(inputs["count"]) == day(case["expected"]["date"])


def dates(case: Case) -> None:
    inputs, expected = case["inputs"], case["expected"]
    months = Calendar(day(inputs.get("anchor") or inputs["start"]), "UTC", Interval.MONTH)
    wanted = expected.get("dates") or expected["invoice_dates"]
    first = 1 if "dates" in expected else 0
    found = [months.boundary(first + number).date().isoformat() for number in range(len(wanted))]
    assert found == wanted


def first_date(case: Case) -> None:
    inputs = case["inputs"]
    year, month, _ = inputs["start"].split("-")
    monthly = inputs["period"] == "MONTHLY"
    anchor = day(f"{year}-{'01' if monthly else month}-{inputs['bcd']:02d}")
    calendar = Calendar(anchor, "UTC", Interval.MONTH if monthly else Interval.YEAR)
    before = day(inputs["start"]) - timedelta(microseconds=1)
    found = calendar.period(calendar.number_at(before)).end
    assert found == day(case["expected"]["first_billing_cycle_date"])


def buckets(case: Case) -> None:
    inputs = case["inputs"]
    here = zone(inputs["tz"])
    anchor = local(datetime(2023, 3, 1), here)  # noqa: DTZ001 - local() takes the naive local time
    calendar = Calendar(anchor, inputs["tz"], Interval.MONTH)
    counts: dict[str, int] = {}
    for text in inputs["events_local"]:
        instant = local(datetime.fromisoformat(text), here)
        start = calendar.period(calendar.number_at(instant)).start.astimezone(here)
        counts[f"{start:%Y-%m}"] = counts.get(f"{start:%Y-%m}", 0) + 1
    assert counts == case["expected"]["counts"]


CHECKS: Final[dict[Callable[[Case], None], str]] = {
    tiered: """openmeterio/openmeter-008 openmeterio/openmeter-009 openmeterio/openmeter-011
        openmeterio/openmeter-019 getlago/lago-api-005 getlago/lago-api-012 getlago/lago-api-013
        getlago/lago-api-015 getlago/lago-api-024 getlago/lago-api-025 flexprice/flexprice-086
        flexprice/flexprice-087 flexprice/flexprice-088 flexprice/flexprice-096 KB-TIER-01
        KB-TIER-02 STR-VOL-5 STR-GRA-6""",
    tiered_cents: """POL-VOL-10 POL-VOL-11 POL-VOL-50 POL-GRA-10 POL-GRA-50 POL-GRA-51 POL-GRA-100
        POL-INC-3 POL-INC-5 POL-INC-15""",
    tiered_split: "openmeterio/openmeter-003",
    capped_and_billed: "openmeterio/openmeter-006",
    tier_found: "openmeterio/openmeter-023",
    package: """openmeterio/openmeter-028 openmeterio/openmeter-029 openmeterio/openmeter-031
        flexprice/flexprice-076 flexprice/flexprice-079 flexprice/flexprice-083""",
    packages: "CHB-PKG-01",
    zero_line: "KB-PKG-ZERO",
    bounded_unit: "openmeterio/openmeter-032 openmeterio/openmeter-034",
    tier_cap: "meteroid-oss/meteroid-040",
    true_up: "flexprice/flexprice-070 flexprice/flexprice-073",
    included: "openmeterio/openmeter-035",
    included_kept: "POL-CRE-03",
    percentage: "getlago/lago-api-023",
    unit_cents: "POL-UNIT-02 POL-UNIT-03 POL-UNIT-05 POL-UNIT-07 POL-UNIT-09",
    unit_price: "flexprice/flexprice-066 flexprice/flexprice-068 flexprice/flexprice-069",
    price_versions: "POL-AGG-03",
    rounding: """flexprice/flexprice-049 flexprice/flexprice-050 flexprice/flexprice-052
        flexprice/flexprice-053 flexprice/flexprice-054""",
    rounding_sum: """flexprice/flexprice-061 flexprice/flexprice-062 flexprice/flexprice-064
        flexprice/flexprice-065""",
    credit_rounding: "getlago/lago-api-051",
    allocation: "POL-DIS-01 POL-DIS-02 POL-DIS-05 POL-DIS-06 POL-DIS-07",
    coupon_split: "getlago/lago-api-048",
    discounted_lines: "meteroid-oss/meteroid-035",
    plan_change: "POL-PRO-01 POL-PRO-03 POL-PRO-04 POL-PRO-07 POL-PRO-10",
    half_change: "POL-PROC-01 STR-PRO-01",
    components: "meteroid-oss/meteroid-005",
    factor: "meteroid-oss/meteroid-029",
    seats: "POL-SEAT-03",
    cycles: "KB-CYC-02 KB-CYC-06 KB-CYC-07 KB-CYC-11",
    pause: "KB-PAU-01",
    blocked: "KB-OD-02",
    peer_changes.kept_whole: "openmeterio/openmeter-039",
    peer_changes.trial_end: "useautumn/autumn-011",
    peer_changes.billed_once: "getlago/lago-api-062 getlago/lago-api-064",
    peer_changes.used_until_the_end: "KB-USG-CAN2",
    peer_changes.credit_cap: "flexprice/flexprice-014 flexprice/flexprice-021",
    peer_changes.capped_repair: "KB-REP-02",
    peer_changes.adjusted_unpaid: "KB-BAL-02",
    peer_changes.failed_payment: "STR-INV-04",
    peer_discounts.percentages_commute: "meteroid-oss/meteroid-030",
    peer_discounts.coupons_beyond: "getlago/lago-api-049",
    peer_discounts.exempt: "meteroid-oss/meteroid-047",
    peer_discounts.unused_part_with_tax: "getlago/lago-api-037",
    peer_discounts.last_note_closes: "getlago/lago-api-039",
    peer_discounts.burned_down: "openmeterio/openmeter-048",
    peer_discounts.credit_then_invoice: "KON-CRE-01",
    peer_discounts.balance_pays: "getlago/lago-api-068",
    period_at: """openmeterio/openmeter-043 openmeterio/openmeter-046 meteroid-oss/meteroid-012
        meteroid-oss/meteroid-016""",
    inclusive_period: "getlago/lago-api-052 getlago/lago-api-054",
    elapsed: "meteroid-oss/meteroid-020",
    next_boundary: """flexprice/flexprice-024 flexprice/flexprice-025 flexprice/flexprice-027
        flexprice/flexprice-030""",
    next_reset: "flexprice/flexprice-041 flexprice/flexprice-044",
    cycle_end: """useautumn/autumn-001 useautumn/autumn-002 useautumn/autumn-003
        useautumn/autumn-006 useautumn/autumn-007 useautumn/autumn-008 useautumn/autumn-012
        useautumn/autumn-014""",
    moved: "useautumn/autumn-021 useautumn/autumn-022",
    dates: "KB-ANC-01 STR-ANC-01 STR-ANC-02",
    first_date: "KB-BCD-01 KB-BCD-02 KB-BCD-04 KB-BCD-05 KB-BCD-06 KB-BCD-08 KB-BCD-09",
    buckets: "KB-TZ-01",
}
SKIPPED: Final = {
    "convention: owed covers the whole period, so a minimum waits for no last line": (
        "openmeterio/openmeter-033"
    ),
    "convention: the fixed fee is per period; events are not counted here": "getlago/lago-api-022",
    "convention: a negative quantity is refused, not clamped": "POL-UNIT-10",
    "convention: usage is added up, a meter never carries over or falls": "getlago/lago-api-066",
    "convention: periods follow the one anchor, the first is never partial": (
        "meteroid-oss/meteroid-022 meteroid-oss/meteroid-023"
    ),
    "convention: a short month is its own length, not that of its neighbour": "KB-CYC-04",
    "convention: seconds of the real period, not months of 30 days": (
        "KB-30D-02 KB-30D-05 KB-30D-07"
    ),
    "convention: no packages within tiers, and one quantity a charge": "KB-TIER-03 KB-TIER-10",
    "convention: an interval is one of five, two years is none": "useautumn/autumn-009",
    "convention: an incomplete subscription does not expire by itself": "STR-SUB-01",
    "convention: a trial has one end; another plan's trial does not lengthen it": (
        "getlago/lago-api-033"
    ),
    "convention: one grace for every boundary, with or without usage": "ORB-GRC-01",
    "convention: an invoice is numbered when it is written; no draft waits in the database": (
        "STR-INV-01 STR-INV-11"
    ),
    "convention: what is below the minimum waits unbilled; it is no debt": "STR-INV-12",
    "later: refunds": "KB-BAL-04",
    "convention: an amount off is for a period, and not prorated with its fee": "POL-PROD-04",
    "elsewhere: the order of credit is a query's (test_money_grants.py)": (
        "openmeterio/openmeter-050"
    ),
    "later: payments, dunning, fees and disputes": """meteroid-oss/meteroid-048 KB-OD-03 KB-OD-04
        STR-FEE-05 STR-FEE-07 STR-DSP-01 STR-DSP-02""",
    "elsewhere: entitlements (quotas and reservations)": """useautumn/autumn-025
        useautumn/autumn-026""",
    "elsewhere: ledger (holds are reservations of quota here)": """TB-2PC-01 TB-2PC-02 TB-2PC-04
        TB-OD-01""",
}
CHECK_OF: Final = {name: check for check, names in CHECKS.items() for name in names.split()}
REASON_OF: Final = {name: reason for reason, names in SKIPPED.items() for name in names.split()}
pytestmark = pytest.mark.skipif(not CASES, reason=f"{FILE} is not on this machine")


def test_every_golden_case_is_checked_or_skipped_for_a_reason() -> None:
    named = {case["id"] for case in CASES}
    assert named - CHECK_OF.keys() - REASON_OF.keys() == set()
    assert (CHECK_OF.keys() | REASON_OF.keys()) - named == set()
    assert CHECK_OF.keys() & REASON_OF.keys() == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_golden_case_holds(case: Case) -> None:
    if case["id"] in REASON_OF:
        pytest.skip(REASON_OF[case["id"]])
    CHECK_OF[case["id"]](case)


def test_days_in_this_file_are_utc() -> None:
    assert day("2024-02-29") == datetime(2024, 2, 29, tzinfo=UTC)
