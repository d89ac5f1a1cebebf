"""What a billing run is, to each of its workers, and what it did, added up page by page.

All of it goes from process to process, and a page's report into its row, as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from convergio.billing.model import CreditDraft, Draft, Problem
from convergio.kernel.money import Money

LINES_A_DAY_MAX: Final = 500  # that amend one subscription; beyond them something may go round


@dataclass(frozen=True, slots=True)
class Order:
    """A run as each of its workers knows it; it bills boundaries up to `closed`.

    `turn` is taken when it begins: a page with a later turn began later. `lines_max`: how many
    lines may amend one subscription in a day.
    """

    run_id: UUID
    as_of: datetime
    now: datetime
    closed: datetime
    turn: int
    dry_run: bool
    lines_max: int


class Page(NamedTuple):
    """Customers from `first` up to, not with, `until`; `again` after it was busy: wait for it."""

    first: UUID
    until: UUID | None
    again: bool = False


@dataclass(frozen=True, slots=True)
class PageRow:
    """A page that a run has billed."""

    run_id: UUID
    customers: int


@dataclass(slots=True)
class Report:
    """What a run did; totals in minor units by currency.

    `elsewhere`: customers whom another run billed in the meantime, as this one would have.
    """

    invoices: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    customers: int = 0
    lines: int = 0
    problems: list[Problem] = field(default_factory=list)
    credit_notes: int = 0
    credited: dict[str, int] = field(default_factory=dict)
    elsewhere: int = 0

    def add(
        self,
        drafts: Sequence[Draft],
        problems: Sequence[Problem],
        *,
        customers: int,
        notes: Sequence[CreditDraft] = (),
    ) -> None:
        """Count a batch that was committed."""
        self.invoices += len(drafts)
        self.credit_notes += len(notes)
        for one in notes:
            known = self.credited.get(one.total.currency, 0)
            self.credited[one.total.currency] = known + one.total.minor
        self.customers += customers
        self.problems += problems
        for draft in drafts:
            self.lines += len(draft.lines)
            currency = draft.total.currency
            self.totals[currency] = self.totals.get(currency, 0) + draft.total.minor

    def merge(self, other: "Report") -> None:
        """Add what another page, or another worker, did."""
        for mine, theirs in ((self.totals, other.totals), (self.credited, other.credited)):
            for currency, minor in theirs.items():
                mine[currency] = mine.get(currency, 0) + minor
        self.invoices += other.invoices
        self.customers += other.customers
        self.lines += other.lines
        self.problems += other.problems
        self.credit_notes += other.credit_notes
        self.elsewhere += other.elsewhere

    def value(self, name: Callable[[UUID], str] = str) -> dict[str, object]:
        """Return the report as JSON takes it; `name` gives a customer's public id."""
        value: dict[str, object] = {
            "invoices": self.invoices,
            "total": {
                currency: Money(minor, currency).text()
                for currency, minor in sorted(self.totals.items())
            },
            "customers": self.customers,
            "lines": self.lines,
            "problems": [
                {"customer": name(one.customer_id), "code": one.code, "reason": one.reason}
                for one in self.problems
            ],
        }
        if self.credit_notes:
            value["credit_notes"] = self.credit_notes
            value["credited"] = {
                currency: Money(minor, currency).text()
                for currency, minor in sorted(self.credited.items())
            }
        if self.elsewhere:
            value["customers_elsewhere"] = self.elsewhere
        return value


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a page: how many customers it had and what was done, or that it is busy."""

    customers: int = 0
    report: Report = field(default_factory=Report)
    busy: bool = False
