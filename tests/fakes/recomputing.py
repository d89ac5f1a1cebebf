"""Recompute what an explanation says from its JSON, or its text, alone."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from convergio.kernel.money import Amount, Money


def owed(steps: Sequence[Mapping[str, str]], currency: str) -> Money:
    """Return what the steps come to: exact sums, one rounding."""
    exact = Fraction(0)
    for step in steps:
        share = Fraction(step.get("share", "1"))
        if "bound" in step:
            exact = Fraction(step["bound"]) * share
        else:
            part = Fraction(step["quantity"]) * Fraction(step["unit"]) / Fraction(step["per"])
            exact += part * share
    return Amount(exact, currency).round()


def check(value: Mapping[str, Any]) -> None:
    """Check that an explanation's numbers follow from each other."""
    currency = value["currency"]
    amount = Money.parse(value["amount"].removeprefix("-"), currency).minor
    amount *= -1 if value["amount"].startswith("-") else 1
    steps = value["steps"]
    due = owed(steps, currency)
    assert due.minor == sum(minor(step["amount"], currency) for step in steps), value
    if value["owed"] is None:
        assert (due.minor, value["billed_before"]) == (amount, None), value
    else:
        assert due.minor == minor(value["owed"], currency), value
        difference = due.minor - minor(value["billed_before"], currency)
        is_part = value["takes_back"] is not None and difference < amount < 0
        assert difference == amount or is_part, value
    taken = sum(minor(one["amount"], currency) for one in value["discounts"])
    assert minor(value["discount"], currency) == taken, value
    assert minor(value["net"], currency) == amount - taken, value
    group = value["tax"]["group"]
    if group is not None:
        rate = Fraction(value["tax"]["rate"]) / 100
        priced = minor(group["net"], currency)
        if value["tax"]["inclusive"]:
            priced += minor(group["tax"], currency)
            rate /= 1 + rate
        assert round_half_away(priced * rate) == minor(group["tax"], currency), value


def check_text(text: str, value: Mapping[str, Any]) -> None:
    """Check that the text alone has the same steps, and that they come to the same."""
    steps = []
    for line in text.splitlines():
        found = re.fullmatch(
            r" +(-?[\d.]+)  (.+): "
            r"(?:brings the sum to ([\d.]+)|([\d.-]+) at ([\d.]+)(?: per (\d+))?)(?: x ([\d/]+))?",
            line,
        )
        if found is None:
            continue
        amount, _, bound, quantity, unit, per, share = found.groups()
        step = {"amount": amount, "share": share or "1"}
        step |= (
            {"bound": bound} if bound else {"quantity": quantity, "unit": unit, "per": per or "1"}
        )
        steps.append(step)
    assert len(steps) == len(value["steps"]), text
    assert owed(steps, value["currency"]) == owed(value["steps"], value["currency"]), text


def minor(text: str, currency: str) -> int:
    """Return an amount of either sign in minor units."""
    sign = -1 if text.startswith("-") else 1
    return sign * Money.parse(text.removeprefix("-"), currency).minor


def round_half_away(exact: Fraction) -> int:
    """Round as money is rounded."""
    return int(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)


def quantity(events: Sequence[Mapping[str, str]]) -> Decimal:
    """Return what events add up to."""
    return sum((Decimal(one["quantity"]) for one in events), Decimal(0))
