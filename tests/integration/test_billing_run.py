"""A billing run on a real database: what is invoiced, when, once, and under which number."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import date, datetime
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import store
from convergio.billing.model import Status
from convergio.billing.reporting import Report
from convergio.crypto.errors import MissingDataKey
from convergio.infra.db import Database, Tx
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict, Invalid, NotFound
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.subscriptions import actions as subscriptions
from tests.fakes.business import Business, at


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


def test_a_boundary_carries_the_usage_that_ended_and_the_fee_that_begins(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 1_164, "2024-11-20")
    report = shop.bill("2024-12-01T02:00:00Z")
    first, second = shop.invoices()
    assert shop.lines(first) == [("fixed", "fee", 699)]
    assert shop.lines(second) == [("fixed", "fee", 699), ("usage", "usage", 664)]
    assert report.value() == {
        "invoices": 2,
        "total": {"usd": "20.62"},
        "customers": 1,
        "lines": 3,
        "problems": [],
    }
    assert list(report.value())[:2] == ["invoices", "total"]
    assert shop.verify() == []


def test_a_second_run_bills_nothing(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    assert shop.bill("2025-01-15").invoices == 3
    assert shop.bill("2025-01-15").invoices == 0
    assert shop.bill("2024-12-15").invoices == 0
    assert shop.verify() == []


def test_catching_up_makes_one_invoice_a_boundary(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.bill("2025-03-02")
    found = shop.invoices()
    assert [one.boundary_at for one in found] == [
        at("2024-11-01"), at("2024-12-01"), at("2025-01-01"), at("2025-02-01"), at("2025-03-01"),
    ]  # fmt: skip
    assert [one.number_text for one in found] == [f"CVG-2025-{n:06d}" for n in range(1, 6)]
    assert {one.issued_on for one in found} == {date(2025, 3, 2)}
    assert {one.due_on for one in found} == {date(2025, 3, 16)}


def test_a_boundary_waits_for_the_grace(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    assert shop.bill("2024-11-01T00:59:59Z").invoices == 0
    assert shop.bill("2024-11-01T01:00:00Z").invoices == 1


def test_a_free_plan_gets_no_invoice(shop: Business) -> None:
    free = shop.customer("free")
    shop.subscribe(free, "free", "2024-11-01")
    shop.use("free", 40, "2024-11-20")
    report = shop.bill("2025-03-02")
    assert (report.invoices, report.customers, report.problems) == (0, 1, [])
    assert shop.verify() == []


def test_late_usage_comes_on_the_next_boundary_with_its_reason(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 510, "2024-11-20")
    shop.bill("2024-12-02")
    shop.use("acme", 5, "2024-11-21")
    assert shop.bill("2024-12-20").invoices == 0
    assert shop.verify() == []
    shop.bill("2025-01-02")
    *_, last = shop.invoices()
    assert shop.lines(last) == [
        ("fixed", "fee", 699),
        ("usage", "late usage for 2024-11-01 to 2024-11-30", 5),
    ]
    assert last.boundary_at == at("2025-01-01")
    assert shop.verify() == []


def test_late_usage_is_priced_in_the_tiers_of_its_own_period(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 499, "2024-11-20")
    shop.bill("2024-12-02")
    shop.use("acme", 3, "2024-11-21")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        view = billing.read(tx, shop.keyring, shop.invoices()[-1])
    late = view.lines[-1]
    assert (late.amount, int(late.quantity)) == (2, 502)
    assert late.detail["owed"] == "0.02"
    assert late.detail["billed"] == "0.00"


def test_canceling_now_bills_the_usage_so_far_and_keeps_the_fee(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.bill("2024-11-02")
    shop.use("acme", 600, "2024-11-10")
    shop.cancel(acme, "2024-11-15T10:00:00Z", at_period_end=False)
    shop.use("acme", 100, "2024-11-20")
    shop.bill("2025-03-02")
    found = shop.invoices()
    assert [shop.lines(one) for one in found] == [
        [("fixed", "fee", 699)],
        [("usage", "usage", 100)],
    ]
    assert found[1].boundary_at == at("2024-11-15T10:00:00Z")
    assert shop.verify() == []


def test_canceling_at_the_period_end_bills_that_boundary_without_a_fee(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.cancel(acme, "2024-11-15", at_period_end=True)
    shop.use("acme", 600, "2024-11-20")
    shop.bill("2025-03-02")
    assert [shop.lines(one) for one in shop.invoices()] == [
        [("fixed", "fee", 699)],
        [("usage", "usage", 100)],
    ]
    assert shop.verify() == []


def test_late_usage_of_a_canceled_customer_gets_final_invoices(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 510, "2024-11-02")
    shop.cancel(acme, "2024-11-15", at_period_end=False)
    shop.bill("2024-11-16")
    for _ in range(2):
        shop.use("acme", 7, "2024-11-03")
        assert shop.bill("2024-12-20").invoices == 1
    *_, one, two = shop.invoices()
    assert shop.lines(one) == [("usage", "late usage for 2024-11-01 to 2024-11-14", 7)]
    assert shop.lines(two) == [("usage", "late usage for 2024-11-01 to 2024-11-14", 7)]
    assert one.boundary_at < two.boundary_at
    assert shop.verify() == []


def test_a_returning_customer_is_billed_for_both_agreements(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 510, "2024-11-02")
    shop.cancel(acme, "2024-11-15", at_period_end=False)
    shop.subscribe(acme, "team", "2024-11-15", seats=3)
    shop.use("acme", 1_020, "2024-11-20")
    shop.bill("2024-12-16")
    assert [shop.lines(one) for one in shop.invoices()] == [
        [("fixed", "fee", 699)],
        [("fixed", "fee", 3600), ("usage", "usage", 10)],
        [("fixed", "fee", 3600), ("usage", "usage", 20)],
    ]
    assert shop.verify() == []


def test_a_line_of_nothing_parks_that_customer_alone_until_it_is_gone(shop: Business) -> None:
    bad, good = shop.customer("bad"), shop.customer("good")
    for one in (bad, good):
        shop.subscribe(one, "pro", "2024-11-01")
    shop.bill("2024-12-02")
    stray = "UPDATE invoice_line SET item_id = %s WHERE customer_id = %s AND amount = 699"
    with shop.database.transaction() as tx:
        (item,) = tx.tuples(
            "SELECT item_id FROM subscription_item JOIN price USING (price_id)"
            " WHERE subscription_item.customer_id = %(bad)s AND kind = 'fixed'",
            bad=bad,
        )
        tx.raw.execute(stray, [UUID(int=9), bad])
    report = shop.bill("2025-01-02")
    assert [(one.customer_id, one.code) for one in report.problems] == [(bad, "stray")]
    assert (len(shop.invoices(bad)), len(shop.invoices(good))) == (2, 3)
    assert any("billing of customer" in one.where for one in shop.verify())
    with shop.database.transaction() as tx:
        assert [(p.customer_id, p.code) for p in billing.parked(tx)] == [(bad, "stray")]
        tx.raw.execute(stray, [item[0], bad])
    assert shop.bill("2025-01-02").problems == []
    with shop.database.transaction() as tx:
        assert billing.parked(tx) == []
        facts = tx.tuples("SELECT type FROM outbox_event WHERE type LIKE 'billing.%%'")
    assert facts == [("billing.parked",), ("billing.unparked",)]
    assert shop.verify() == []


def test_a_buyer_who_cannot_be_read_parks_that_customer_alone(shop: Business) -> None:
    bad, good = shop.customer("bad", name="Bad Ltd"), shop.customer("good", name="Good Ltd")
    for one in (bad, good):
        shop.subscribe(one, "pro", "2025-01-01")
    with shop.database.transaction() as tx:
        tx.raw.execute("DELETE FROM data_key WHERE customer_id = %s", [bad])
    shop.keyring = Business(shop.database, shop.now).keyring
    report = shop.bill("2025-01-15")
    assert [(one.customer_id, one.code) for one in report.problems] == [(bad, MissingDataKey.code)]
    assert (len(shop.invoices(bad)), len(shop.invoices(good))) == (0, 1)


def test_the_buyer_is_kept_as_known_at_issue(shop: Business) -> None:
    acme = shop.customer("acme", name="Acme Ltd", country="IT", locale="it")
    shop.subscribe(acme, "pro", "2025-01-01")
    shop.bill("2025-01-15")
    (invoice,) = shop.invoices()
    with shop.database.transaction() as tx:
        buyer = billing.read(tx, shop.keyring, invoice).buyer
    assert (buyer.key, buyer.name, buyer.country, buyer.locale) == ("acme", "Acme Ltd", "IT", "it")
    assert b"Acme" not in invoice.sealed_buyer
    assert "Acme" not in repr(buyer)


def test_a_dry_run_says_the_same_and_leaves_nothing(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    dry = shop.bill("2025-03-02", dry_run=True)
    with shop.database.transaction() as tx:
        (left,) = tx.tuples(
            "SELECT (SELECT count(*) FROM invoice), (SELECT count(*) FROM invoice_series),"
            " (SELECT count(*) FROM subscription_period WHERE number > 0),"
            " (SELECT count(*) FROM billing_run)"
        )
    assert left == (0, 0, 0, 0)
    assert dry.value() == shop.bill("2025-03-02").value()


def test_two_runs_at_once_bill_each_boundary_once(shop: Business, now: datetime) -> None:
    ids = shop.customers([f"c{number}" for number in range(1_200)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(shop.bill, ["2025-01-02", "2025-01-02"]))
    assert sum(one.invoices for one in reports) == 2_400
    assert [one.number for one in shop.invoices()] == list(range(1, 2_401))
    assert [one.customers + one.elsewhere for one in reports] == [1_200, 1_200]
    assert shop.verify() == []


def test_a_page_that_another_run_began_later_and_billed_as_far_is_left_to_it(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number}" for number in range(1_100)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2025-01-01"), now=now
        )
    others: list[Report] = []

    def let_another_run(_: int) -> None:
        if not others:
            others.append(shop.bill("2025-01-15"))

    heard = shop.bill("2025-01-15", progress=let_another_run)
    assert (heard.invoices, heard.customers, heard.elsewhere) == (1_000, 1_000, 100)
    assert (others[0].invoices, others[0].customers, others[0].elsewhere) == (100, 1_100, 0)
    assert heard.value()["customers_elsewhere"] == 100


def test_a_run_that_reaches_further_bills_what_a_shorter_one_did(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number}" for number in range(1_100)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2025-01-01"), now=now
        )
    others: list[Report] = []

    def let_another_run(_: int) -> None:
        if not others:
            others.append(shop.bill("2025-01-15"))

    heard = shop.bill("2025-02-02", progress=let_another_run)
    assert (heard.invoices, heard.elsewhere) == (2_100, 0)
    assert others[0].invoices == 100
    assert shop.verify() == []


def test_usage_that_came_before_a_run_is_billed_by_it_or_a_later_one(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.bill("2024-12-02")
    shop.use("acme", 600, "2024-12-10")
    assert shop.bill("2025-01-02").elsewhere == 0
    assert shop.lines(shop.invoices()[-1])[-1] == ("usage", "usage", 100)


def test_workers_bill_what_one_process_would(shop: Business, now: datetime) -> None:
    ids = shop.customers([f"c{number}" for number in range(4_100)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2025-01-01"), now=now
        )
    heard: list[int] = []
    dry = shop.bill("2025-01-15", workers=2, dry_run=True)
    report = shop.bill("2025-01-15", workers=2, progress=heard.append)
    assert dry == report
    assert (report.invoices, report.totals, sum(heard)) == (4_100, {"usd": 4_100 * 699}, 4_100)
    assert sorted(one.number for one in shop.invoices()) == list(range(1, 4_101))
    assert shop.verify() == []
    assert shop.bill("2025-01-15", workers=2).invoices == 0


def test_a_killed_batch_leaves_no_gap_and_the_next_run_goes_on(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number}" for number in range(1_200)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2025-01-01"), now=now
        )

    class Killed(Exception):
        pass

    def die(_: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        shop.bill("2025-01-15", progress=die)
    assert len(shop.invoices()) == 1_000
    assert shop.verify() == []
    assert shop.bill("2025-01-15").invoices == 200
    assert [one.number for one in shop.invoices()] == list(range(1, 1_201))
    assert shop.verify() == []


def test_the_issue_day_is_the_sellers_and_never_goes_back(shop: Business) -> None:
    tokyo = Seller(time_zone="Asia/Tokyo", series="TK")
    one, two = shop.customer("one"), shop.customer("two")
    shop.subscribe(one, "pro", "2024-12-15")
    shop.bill("2024-12-31T16:00:00Z", seller=tokyo)
    shop.subscribe(two, "pro", "2024-12-20")
    shop.bill("2024-12-30", seller=tokyo)
    assert [(i.number_text, i.issued_on) for i in shop.invoices()] == [
        ("TK-2025-000001", date(2025, 1, 1)),
        ("TK-2025-000002", date(2025, 1, 1)),
    ]


def test_numbers_begin_again_in_a_new_year(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-12-01")
    shop.bill("2024-12-15")
    shop.bill("2025-01-15")
    assert [i.number_text for i in shop.invoices()] == ["CVG-2024-000001", "CVG-2025-000001"]
    assert shop.verify() == []


def test_an_invoice_posts_its_fees_and_usage(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-12-01")
    shop.use("acme", 600, "2024-12-05")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        sums = {a: ledger.balance(tx, acme, a, "usd").minor for a in Account}
        totals = ledger.totals(tx)
    assert sums[Account.RECEIVABLE] == 1498
    assert sums[Account.DEFERRED_REVENUE] == -1398
    assert sums[Account.USAGE_REVENUE] == -100
    assert sum(one.minor for one in totals.values()) == 0


def test_a_payment_completes_an_invoice_and_the_excess_is_the_customers(
    shop: Business, now: datetime
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    shop.bill("2025-01-02")
    (invoice,) = shop.invoices()

    def pay(amount: Money) -> None:
        with shop.database.transaction() as tx:
            billing.apply_payment(
                tx, customer_id=acme, invoice_id=invoice.invoice_id, amount=amount, now=now
            )

    pay(Money(600, "usd"))
    with pytest.raises(Conflict):
        pay(Money(99, "eur"))
    (invoice,) = shop.invoices()
    assert (invoice.status, invoice.paid, invoice.due) == (Status.OPEN, 600, Money(99, "usd"))
    pay(Money(99, "usd"))
    (invoice,) = shop.invoices()
    assert (invoice.status, invoice.paid) == (Status.PAID, 699)
    pay(Money(1, "usd"))
    with shop.database.transaction() as tx:
        assert billing.open_invoices(tx) == []
        assert [one.paid for one in billing.paid_amounts(tx, [acme])] == [700]
        assert ledger.customer_credit(tx, [acme]) == {acme: 1}
    assert shop.verify() == []


def test_an_invoice_is_found_by_its_number(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        invoice = billing.find_numbered(tx, "CVG-2025-000001")
        assert billing.find(tx, acme, invoice.invoice_id) == invoice
        with pytest.raises(NotFound):
            billing.find_numbered(tx, "CVG-2025-000002")
        for wrong in ("CVG", "cvg-2025-000001", "CVG-2025-000001 "):
            with pytest.raises(Invalid):
                billing.find_numbered(tx, wrong)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE invoice SET total = total + 1", "total of invoice"),
        ("UPDATE invoice_line SET amount = amount - 1 WHERE kind = 'usage'", "total of invoice"),
        ("UPDATE invoice SET number = 9 WHERE number = 2", "numbers of series"),
        ("UPDATE invoice_series SET last_number = 3", "numbers of series"),
        ("UPDATE ledger_transfer SET amount = amount + 1", "transfers of invoice"),
        ("DELETE FROM ledger_transfer WHERE credit_account = 'usage_revenue'", "transfers of"),
        ("UPDATE usage_total SET used = 1", "usage of"),
        ("UPDATE subscription_period SET end_at = end_at - interval '1 day'", "month period"),
        (
            "DELETE FROM invoice_line WHERE kind = 'fixed'",
            "fee of item",
        ),
    ],
)
def test_verify_names_what_was_tampered_with(shop: Business, change: str, where: str) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-12-01")
    shop.use("acme", 600, "2024-12-05")
    shop.bill("2025-01-02")
    assert shop.verify() == []
    with shop.database.transaction() as tx:
        tx.raw.execute(change.encode())
    assert any(one.where.startswith(where) for one in shop.verify()), shop.verify()


def test_a_series_that_begins_beside_another_one_is_begun_again(shop: Business) -> None:
    day = date(2026, 1, 2)
    numbers: list[tuple[str, int]] = []

    def number(series: str, *, is_note: bool) -> Callable[[Tx], None]:
        def take(tx: Tx) -> None:
            store.lock_series(tx, series)
            taken = store.take_numbers(tx, series, count=1, issued_on=day, is_note=is_note)
            numbers.append((series, taken.first))

        return take

    for series in ("OLD", "OLD-CN"):
        shop.database.insist(number(series, is_note=series.endswith("-CN")))
    with ThreadPoolExecutor(1) as beside:
        with shop.database.transaction() as tx:
            number("NEW", is_note=False)(tx)
            other = beside.submit(shop.database.insist, number("NEW-CN", is_note=True))
            wait([other], timeout=0.5)
        other.result()
    assert sorted(numbers) == [("NEW", 1), ("NEW-CN", 1), ("OLD", 1), ("OLD-CN", 1)]
