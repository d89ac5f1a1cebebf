"""The billing run: pages of customers, each billed in one transaction, in whatever order.

A page is claimed under an advisory lock, so that the workers of a run, and runs that happen at the
same time, share the pages out. Its row in `billing_page` is written by the transaction that bills
it: what is there was done, whoever was killed since, and the report of a run adds its rows up.
A batch locks the subscriptions of its customers, so no two ever bill the same one at once. The
numbers are taken last, under the series' own lock, so none is lost with a page that fails.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from convergio.billing import buying, issuing, owing, rules, settling, store
from convergio.billing.model import CreditDraft, Draft, Problem
from convergio.billing.reporting import LINES_A_DAY_MAX, Done, Order, Page, Report
from convergio.crypto.actions import Keyring
from convergio.infra import memory, outbox, processes
from convergio.infra.db import Database, Tx
from convergio.infra.ids import new_id, typeid
from convergio.infra.settings import Seller
from convergio.kernel.errors import Unavailable
from convergio.kernel.periods import instant_text
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import BillingView

PAGE_CUSTOMERS: Final = 1_000
PAGES_A_WORKER_MIN: Final = 3  # fewer are done before another process has started
GRACE: Final = timedelta(hours=1)
PAGES_KEPT: Final = timedelta(days=7)
BROKEN_A_PAGE_MAX: Final = 20
_NOBODY: Final = UUID(int=0)

Progress = Callable[[int], None]


class _Undone(Exception):
    """Leaves the transaction of a dry run."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one page, or a part of it, came to."""

    customers: int
    drafts: Sequence[Draft]
    notes: Sequence[CreditDraft]
    problems: Sequence[Problem]

    def with_(self, other: "_Batch") -> "_Batch":
        """Return both as one."""
        return _Batch(
            self.customers + other.customers,
            [*self.drafts, *other.drafts],
            [*self.notes, *other.notes],
            [*self.problems, *other.problems],
        )


class _Biller:
    """Bills page after page of one run in one process; what it reads of prices it keeps."""

    def __init__(
        self,
        database: Database,
        order: Order,
        seller: Seller,
        keyring: Keyring,
        can_pay: subscriptions.CanPay | None,
    ) -> None:
        """Take what every page shares."""
        self._database = database
        self._order = order
        self._by = issuing.Issuer(seller, keyring, order.as_of, order.now)
        self._can_pay = can_pay
        self._prices = owing.Prices()

    def __call__(self, page: Page) -> Done:
        """Bill one page, again where a lock or a deadlock undid it. Raises: Unavailable.

        Where something breaks it is billed again in parts, until whom it breaks for is found and
        parked: one customer's facts stop nobody else's invoice.
        """
        try:
            return self._insisted(page, self._bill)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - what broke is raised again unless it is of a customer
            return self._insisted(page, self._bill_apart)

    def _insisted(self, page: Page, bill: Callable[[Tx, Sequence[UUID]], _Batch]) -> Done:
        done: list[Done] = []

        def work(tx: Tx) -> None:
            done[:] = [self._claimed(tx, page, bill)]
            if self._order.dry_run:
                raise _Undone

        with suppress(_Undone):
            self._database.insist(work)
        return done[0]

    def _claimed(self, tx: Tx, page: Page, bill: Callable[[Tx, Sequence[UUID]], _Batch]) -> Done:
        """Bill a page unless someone is at it, or began it after this run did and is done."""
        if page.again:
            store.lock_page(tx, page.first)
        elif not store.claim_page(tx, page.first):
            return Done(busy=True)
        turn = store.next_turn(tx)
        known = store.find_page(tx, page, self._order)
        if known is not None:
            ours = known.run_id == self._order.run_id
            return Done(known.customers, Report(elsewhere=0 if ours else known.customers))
        batch = bill(tx, subscriptions.customers_in(tx, first=page.first, until=page.until))
        report = Report()
        report.add(batch.drafts, batch.problems, customers=batch.customers, notes=batch.notes)
        if not self._order.dry_run:
            store.insert_page(tx, page, self._order, turn=turn, report=report)
        return Done(batch.customers, report)

    def _bill_apart(self, tx: Tx, customer_ids: Sequence[UUID]) -> _Batch:
        """Bill customers in halves, each in a savepoint, and park those who cannot be billed alone.

        Locks: all their subscriptions first, for the first half already takes numbers of the
        series. Raises: what broke, where it breaks for so many that it is no customer's own.
        """
        subscriptions.hold_many(tx, customer_ids)
        batch, parts = _Batch(0, [], [], []), [customer_ids] if customer_ids else []
        broken = 0
        while parts:
            some = parts.pop()
            try:
                with tx.savepoint():
                    batch = batch.with_(self._bill(tx, some))
            except Unavailable:
                raise
            except Exception as error:
                if len(some) > 1:
                    half = len(some) // 2
                    parts += [some[half:], some[:half]]
                    continue
                broken += 1
                if broken > BROKEN_A_PAGE_MAX:
                    raise
                problems = [rules.broken(some[0], error)]
                _park(tx, [], problems, now=self._by.as_of)
                batch = batch.with_(_Batch(1, [], [], problems))
        return batch

    def _bill(self, tx: Tx, customer_ids: Sequence[UUID]) -> _Batch:
        """Read customers in bulk, decide without the database, write in bulk."""
        by, closed = self._by, self._order.closed
        views = subscriptions.for_customers(
            tx, customer_ids, until=closed, now=by.as_of, can_pay=self._can_pay
        )
        found = settling.settled(
            tx,
            views,
            self._prices,
            closed=closed,
            day=by.as_of,
            time_zone=by.seller.time_zone,
            keyring=by.keyring,
            lines_max=self._order.lines_max,
            issued_on=rules.issue_day(
                by.as_of, by.seller.time_zone, last=store.find_last_issue(tx, by.seller.series)
            ),
        )
        wanted = {d.customer_id for d in found.drafts} | {n.customer_id for n in found.notes}
        buyers, unreadable = buying.buyers_of(tx, by.keyring, wanted)
        drafts = [draft for draft in found.drafts if draft.customer_id in buyers]
        notes = [note for note in found.notes if note.customer_id in buyers]
        problems = found.problems + unreadable
        problems += [Problem(v.customer_id, "delayed_end", v.delay) for v in views if v.delay]
        _park(tx, views, problems, now=by.as_of)
        out = found.waiting | {one.customer_id for one in problems}
        subscriptions.close(tx, [view for view in views if view.customer_id not in out])
        if drafts or notes:
            issuing.issue(tx, by, drafts, notes, buyers)
        return _Batch(len(views), drafts, notes, problems)


def run(
    database: Database,
    *,
    as_of: datetime,
    now: datetime,
    seller: Seller,
    keyring: Keyring,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    progress: Progress | None = None,
    can_pay: subscriptions.CanPay | None = None,
    workers: int = 1,
    lines_max: int = LINES_A_DAY_MAX,
) -> Report:
    """Invoice what is owed at boundaries up to `as_of` less the grace and not billed yet.

    Opens one transaction a page of customers; `progress` hears how many customers each one had.
    Numbers and dates of issue follow `as_of`, the instant that the run pretends to be; ids follow
    `now`. `can_pay` says who has a payment method when a trial ends. A dry run goes through the
    same code and undoes each page. Several `workers` are processes of their own, as many as there
    is work for. Beyond `lines_max` amended lines of one subscription in a day its customer is
    parked: something may go round. Returns what
    this run committed, and how many customers another run billed meanwhile (`elsewhere`). Locks:
    a page, its subscriptions, credited invoices, then the series. Emits: invoice.finalized,
    credit_note.finalized, invoice.paid, billing.parked, billing.unparked, and what
    `subscriptions.renew` emits. Raises: Unavailable when another writer stays in the way, or no
    worker is left; what is committed stays.
    """
    order, pages = _begin(
        database, keyring, as_of, now, grace=grace, dry_run=dry_run, lines_max=lines_max
    )
    count = min(workers, -(-len(pages) // PAGES_A_WORKER_MIN))
    if count > 1:
        hired = partial(_hired, database.dsn, order, seller, keyring, can_pay)
        told = processes.share_out(hired, pages, workers=count)
    else:
        told = _in_turn(_Biller(database, order, seller, keyring, can_pay), pages)
    heard = Report()
    for page, done in told:
        if done.busy:
            pages.append(page._replace(again=True))
            continue
        heard.merge(done.report)
        if progress is not None:
            progress(done.customers)
    if dry_run:
        return heard
    with database.transaction() as tx:
        report = _total(store.list_reports(tx, order.run_id), elsewhere=heard.elsewhere)
        value = {"closed": instant_text(order.closed)} | report_value(report)
        store.finish_run(tx, order.run_id, finished_at=now, report=value)
        store.delete_pages(tx, begun_before=now - PAGES_KEPT)
    return report


def _begin(
    database: Database,
    keyring: Keyring,
    as_of: datetime,
    now: datetime,
    *,
    grace: timedelta,
    dry_run: bool,
    lines_max: int,
) -> tuple[Order, deque[Page]]:
    """Note that a run begins; return it with its pages, the last of them open to newcomers."""
    with database.transaction() as tx:
        keyring.prepare(tx)
        turn, run_id = store.next_turn(tx), new_id(now)
        if not dry_run:
            store.insert_run(tx, run_id, as_of=as_of, started_at=now, turn=turn)
        firsts = [_NOBODY, *subscriptions.page_starts(tx, size=PAGE_CUSTOMERS)]
    untils = [*firsts[1:], None]
    order = Order(run_id, as_of, now, as_of - grace, turn, dry_run, lines_max)
    return order, deque(Page(*ends) for ends in zip(firsts, untils, strict=True))


@contextmanager
def _hired(
    dsn: str,
    order: Order,
    seller: Seller,
    keyring: Keyring,
    can_pay: subscriptions.CanPay | None,
) -> Iterator[_Biller]:
    """Begin to work in a process of its own."""
    with Database(dsn, size_max=1) as database:
        memory.settle()
        yield _Biller(database, order, seller, keyring, can_pay)


def _in_turn(work: Callable[[Page], Done], pages: deque[Page]) -> Iterator[tuple[Page, Done]]:
    while pages:
        page = pages.popleft()
        yield page, work(page)


def _total(reports: Iterable[Report], *, elsewhere: int) -> Report:
    total = Report(elsewhere=elsewhere)
    for one in reports:
        total.merge(one)
    return total


def report_value(report: Report) -> dict[str, object]:
    """Return a report as JSON takes it: invoices and totals first, customers by public id."""
    return report.value(lambda customer_id: typeid("cus", customer_id))


def _park(
    tx: Tx, views: Sequence[BillingView], problems: Sequence[Problem], *, now: datetime
) -> None:
    """Note who is left out and why, and take off the list whose reason is gone."""
    out = {one.customer_id: one for one in problems}
    parked = store.park(tx, list(out.values()), parked_at=now) if out else []
    gone = store.unpark(tx, [v.customer_id for v in views if v.customer_id not in out])
    facts = [outbox.Fact("billing.parked", one, one, {"code": out[one].code}) for one in parked]
    facts += [outbox.Fact("billing.unparked", one, one, {}) for one in gone]
    outbox.emit_many(tx, facts, now=now)
