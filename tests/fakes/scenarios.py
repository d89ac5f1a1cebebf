"""A golden scenario: dated steps of one customer, played on a virtual clock, and the lines of it.

After every step the billing runs twice without grace, and the second run must find nothing: what
a scenario expects is therefore what a run at each of its instants would have billed.
"""

import tomllib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing import correcting, redeeming
from convergio.billing.model import CreditKind, CreditNote, Invoice, Voiding
from convergio.customers import actions as customers
from convergio.discounts import actions as discounts
from convergio.discounts.model import Duration
from convergio.discounts.model import Terms as CouponTerms
from convergio.entitlements import grants
from convergio.entitlements.model import Category, GrantTerms
from convergio.infra.db import Database
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Trial, TrialPolicy, When
from convergio.taxes import actions as taxes
from tests.fakes.business import SELLER, Business, at

FOLDER = Path(__file__).parents[1] / "golden"
CATALOG = FOLDER / "catalog.yaml"
KEY = "acme"


@dataclass
class Played:
    """What came of a scenario: each line as [document, day, name, reason, amount]."""

    invoices: list[list[str]] = field(default_factory=list)
    notes: list[list[str]] = field(default_factory=list)
    balance: str = "0.00"
    statuses: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    totals: list[list[str]] = field(default_factory=list)


class Stage:
    """One customer on the golden catalog, at a moving now."""

    def __init__(self, database: Database, start: str) -> None:
        """Make the customer."""
        self.now = at(start)
        self.shop = Business(database, self.now, CATALOG.read_bytes())
        self.customer_id = self.shop.customer(KEY)
        self.payable: set[UUID] = set()
        self.played = Played()

    def step(self, when: str, verb: str, value: Any) -> None:  # noqa: ANN401 - as TOML has it
        """Do one thing at an instant, then bill twice."""
        self.now = max(self.now, at(when))
        getattr(self, verb)(value)
        self.bill()

    def bill(self) -> None:
        """Run the billing twice: the second run finds nothing."""
        for turn in range(2):
            report = self.shop.bill(
                self.now.isoformat().replace("+00:00", "Z"),
                now=self.now,
                grace=timedelta(0),
                can_pay=lambda _, __: self.payable,
            )
            assert report.problems == []
            assert not turn or (report.invoices, report.credit_notes) == (0, 0)

    def subscribe(self, value: dict[str, Any]) -> None:
        trial = None
        if "trial_days" in value:
            policy = TrialPolicy(value.get("without_method", "activate"))
            trial = Trial(value["trial_days"], policy, value.get("fallback"))
        with self.shop.database.transaction() as tx:
            subscriptions.create(
                tx,
                customer_id=self.customer_id,
                plan_key=value["plan"],
                start=at(value["start"]) if "start" in value else self.now,
                now=self.now,
                time_zone=value.get("time_zone", "UTC"),
                seats=value.get("seats", 1),
                trial=trial,
            )

    def change(self, value: dict[str, Any]) -> None:
        with self.shop.database.transaction() as tx:
            changes.change(
                tx,
                customer_id=self.customer_id,
                plan_key=value.get("plan"),
                seats=value.get("seats"),
                when=When(value["when"]) if "when" in value else None,
                now=self.now,
            )

    def pause(self, _: object) -> None:
        with self.shop.database.transaction() as tx:
            changes.pause(tx, customer_id=self.customer_id, now=self.now)

    def resume(self, _: object) -> None:
        with self.shop.database.transaction() as tx:
            changes.resume(tx, customer_id=self.customer_id, now=self.now)

    def reactivate(self, _: object) -> None:
        with self.shop.database.transaction() as tx:
            changes.reactivate(tx, customer_id=self.customer_id, now=self.now)

    def drop_change(self, _: object) -> None:
        with self.shop.database.transaction() as tx:
            changes.drop_change(tx, customer_id=self.customer_id, now=self.now)

    def cancel(self, value: dict[str, Any]) -> None:
        with self.shop.database.transaction() as tx:
            subscriptions.cancel(
                tx,
                customer_id=self.customer_id,
                at_period_end=value.get("at_period_end", False),
                credit=value.get("credit", False),
                now=self.now,
            )

    def use(self, value: dict[str, Any]) -> None:
        self.shop.now = self.now
        when = value.get("occurred", self.now.isoformat().replace("+00:00", "Z"))
        self.shop.use(KEY, value["questions"], when)

    def attach_method(self, _: object) -> None:
        self.payable.add(self.customer_id)

    def run(self, _: object) -> None:
        """Only let the time pass."""

    def pay(self, value: dict[str, Any]) -> None:
        with self.shop.database.transaction() as tx:
            invoice = billing.find_numbered(tx, value["invoice"])
            amount = Money.parse(value.get("amount", invoice.due.text()), "usd")
            billing.apply_payment(
                tx,
                customer_id=self.customer_id,
                invoice_id=invoice.invoice_id,
                amount=amount,
                now=self.now,
            )

    def credit(self, value: dict[str, Any]) -> None:
        with self.shop.database.transaction() as tx:
            correcting.credit(
                tx,
                self.issuer(),
                invoice=billing.find_numbered(tx, value["invoice"]),
                reason=value["reason"],
                kind=CreditKind(value.get("kind", "concession")),
                amount=Money.parse(value["amount"], "usd") if "amount" in value else None,
            )

    def void(self, value: dict[str, Any]) -> None:
        with self.shop.database.transaction() as tx:
            correcting.void(
                tx,
                self.issuer(),
                invoice=billing.find_numbered(tx, value["invoice"]),
                how=Voiding(value["how"]),
            )

    def live_in(self, country: str) -> None:
        with self.shop.database.transaction() as tx:
            customers.update(tx, self.shop.keyring, self.customer_id, now=self.now, country=country)

    def tax(self, source: str) -> None:
        with self.shop.database.transaction() as tx:
            taxes.apply(tx, source.encode(), now=self.now)

    def redeem(self, value: dict[str, Any]) -> None:
        """Offer a coupon, and redeem it."""
        money = Money.parse(value["amount"], "usd") if "amount" in value else None
        terms = CouponTerms(
            code="CODE",
            name="Code",
            percent=Decimal(value["percent"]) if "percent" in value else None,
            amount=None if money is None else money.minor,
            currency=None if money is None else money.currency,
            duration=Duration(value.get("duration", "once")),
            periods=value.get("periods"),
        )
        with self.shop.database.transaction() as tx:
            discounts.create(tx, terms, now=self.now)
            redeeming.redeem(tx, customer_id=self.customer_id, code="CODE", now=self.now)

    def grant(self, value: dict[str, Any]) -> None:
        expires = at(value["expires"]) if "expires" in value else None
        terms = GrantTerms(
            key=f"grant {self.now}", category=Category.PROMOTIONAL, amount=value["amount"],
            expires_at=expires,
        )  # fmt: skip
        with self.shop.database.transaction() as tx:
            grants.create(tx, KEY, terms, now=self.now)

    def issuer(self) -> billing.Issuer:
        return billing.Issuer(SELLER, self.shop.keyring, self.now, self.now)

    def note_limit(self, _: object) -> None:
        """Keep what the quota of questions is now."""
        with self.shop.database.transaction() as tx:
            rows = tx.tuples(
                "SELECT quota_limit, used FROM usage_total WHERE customer_id = %(c)s"
                " AND start_at <= %(now)s AND end_at > %(now)s AND dimensions = ''",
                c=self.customer_id,
                now=self.now,
            )
        self.played.limits += [f"{int(used)} of {limit and int(limit)}" for limit, used in rows]

    def finish(self) -> Played:
        """Return every line, and what verify finds must be nothing."""
        played = self.played
        found = self.shop.verify()
        assert found == [], found
        with self.shop.database.transaction() as tx:
            for invoice in self.shop.invoices():
                played.totals.append(sums(invoice))
                for line in billing.read(tx, self.shop.keyring, invoice).lines:
                    name = line.description.removesuffix(f": {line.reason}")
                    played.invoices.append(
                        [
                            invoice.number_text,
                            shown(invoice.boundary_at),
                            name,
                            line.reason,
                            Money(line.amount, line.currency).text(),
                        ]
                    )
            for note in correcting.notes(tx, customer_id=self.customer_id):
                played.totals.append(sums(note))
                for credit in correcting.note_lines(tx, note):
                    played.notes.append(
                        [
                            note.number_text,
                            shown(note.finalized_at),
                            credit.description.removesuffix(f": {note.reason}"),
                            note.reason,
                            Money(credit.amount, note.currency).text(),
                        ]
                    )
            left = ledger.customer_credit(tx, [self.customer_id]).get(self.customer_id, 0)
            played.balance = Money(left, "usd").text()
            every = subscriptions.history(tx, self.customer_id)
            played.statuses = [f"{one.plan_key} {one.status}" for one in every]
            assert metering.verify(tx) == []
        return played


def sums(document: Invoice | CreditNote) -> list[str]:
    """Return a document's number, subtotal, discount, tax and total."""
    minors = (document.subtotal, document.discount, document.tax, document.total)
    return [document.number_text, *(Money(minor, document.currency).text() for minor in minors)]


def shown(instant: datetime) -> str:
    """Return an instant as its day, with the time where it is not midnight."""
    text = f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    return text.removesuffix("T00:00:00Z")


def play(database: Database, path: Path) -> tuple[dict[str, Any], Played]:
    """Play a scenario file; return it and what came of it."""
    scenario = tomllib.loads(path.read_text(encoding="utf-8"))
    stage = Stage(database, scenario["step"][0]["at"])
    for step in scenario["step"]:
        ((verb, value),) = [(key, step[key]) for key in step if key != "at"]
        stage.step(step["at"], verb, value)
    return scenario, stage.finish()
