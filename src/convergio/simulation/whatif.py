"""What every customer would have been billed under another catalog: real history, other prices.

Both sides are the past billed again in memory (`billing.replaying`), with everything that applied:
coupons pinned to their periods, credit, tax, credit notes of changes. So at the prices of today it
is what was billed, to the cent, and what differs differs for the prices alone. Nothing is written:
it reads one snapshot, page after page.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from convergio.billing import owing, replaying, settling
from convergio.billing.replaying import Ground, Sums, Used
from convergio.catalog import actions as catalog
from convergio.catalog.model import Catalog
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.infra.db import Tx
from convergio.kernel.errors import ConvergioError
from convergio.kernel.money import Money
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.metering import actions as metering
from convergio.metering.model import Limit
from convergio.metering.schedule import Terms
from convergio.simulation.other_prices import OtherPrices
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import limits
from convergio.subscriptions.model import Agreement, BillingView, Item

_PAGE: Final = 500
_SUMMED: Final = frozenset({"sum", "count"})
_NOTHING: Final = Sums(0, 0)
_FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Compared:
    """One customer: revenue after discounts, without tax, at the prices they had and at the others.

    `billed` is what documents of the time say; it differs from `now` where somebody corrected
    `by_hand`, or where something that decides was changed since, such as where the customer lives.
    With a `problem` neither side can be billed, and all is zero.
    """

    customer: str
    now: Money
    then: Money
    now_tax: Money
    then_tax: Money
    billed: Money
    billed_tax: Money
    by_hand: bool = False
    problem: str | None = None

    @property
    def difference(self) -> Money:
        """What the other catalog would bring more; below zero what it would bring less."""
        return self.then - self.now

    @property
    def is_as_billed(self) -> bool:
        """Say whether billing the past again gives what documents say."""
        return (self.now, self.now_tax) == (self.billed, self.billed_tax)


@dataclass(slots=True)
class _Asked:
    """What is compared, and what one page leaves to the next."""

    tx: Tx
    keyring: Keyring
    live: Catalog
    other: OtherPrices
    minimums: Mapping[str, Money]
    during: Period
    now: owing.Prices

    def page(self, views: Sequence[BillingView]) -> Iterator[Compared]:
        """Yield a page of customers, both sides."""
        accounts = customers.get_many(self.tx, [view.customer_id for view in views])
        self._read_prices(views)
        ground = replaying.ground(
            self.tx, views, self.now, keyring=self.keyring, during=self.during
        )
        others = self._others(views)
        then = owing.Prices(self.other.prices)
        then.add(catalog.prices(self.tx, then.missing(others.values())))
        then.turn_page(self.live)
        then.minimums = self.minimums
        used = self._used(views, self.now), self._used_then(others, then)
        for view in views:
            account, other = accounts[view.customer_id], others.get(view.customer_id)
            problem, before, after = None, _NOTHING, _NOTHING
            try:
                before = after = self._billed(view, self.now, used[0], ground)
                if other is not None:
                    after = self._billed(other, then, used[1], ground)
            except ConvergioError as error:
                problem, before, after = error.detail, _NOTHING, _NOTHING
            yield _compared(account, ground, before, after, problem)

    def _read_prices(self, views: Sequence[BillingView]) -> None:
        """Read what these customers alone have; what earlier ones had is forgotten."""
        self.now = owing.Prices(self.live.prices_by_id) if self.other.agreed else self.now
        self.other.agreed = catalog.prices(self.tx, self.now.missing(views))
        self.now.add(self.other.agreed)
        self.now.turn_page(self.live)

    def _others(self, views: Sequence[BillingView]) -> dict[UUID, BillingView]:
        """Return whom the other catalog changes anything for, with its prices."""
        is_same = self.minimums == self.live.minimums
        laid = [(view, self.other.laid(view, until=self.during.end)) for view in views]
        return {view.customer_id: other for view, other in laid if other is not view or not is_same}

    def _billed(self, view: BillingView, prices: owing.Prices, used: Used, ground: Ground) -> Sums:
        during = self.during
        return replaying.rebilled(view, prices, used, ground, closed=during.end, during=during)

    def _requests(
        self, views: Iterable[BillingView], prices: owing.Prices
    ) -> list[owing.UsageRequest]:
        closed = self.during.end
        return [one for v in views for one in owing.usage_requests(v, prices, closed=closed)]

    def _used(self, views: Sequence[BillingView], prices: owing.Prices) -> Used:
        requests = self._requests(views, prices)
        usage, drawn = settling.used(self.tx, requests, self.live.meters)
        return Used(dict(usage), drawn)

    def _used_then(self, others: Mapping[UUID, BillingView], prices: owing.Prices) -> Used:
        """Return the usage that the other prices ask for, and what of it credit would have paid."""
        if not others:
            return Used({})
        requests = self._requests(others.values(), prices)
        usage, drawn = settling.used(self.tx, requests, self.live.meters)
        if drawn:
            whole = [
                (who, of if isinstance(of, str) else of.meter_key, at) for who, of, at in requests
            ]
            drawn = metering.drawn_in(self.tx, whole, other=self._terms(others))
        return Used(dict(usage), drawn)

    def _terms(self, others: Mapping[UUID, BillingView]) -> metering.OtherTerms:
        """Return what says beyond what of a period usage draws credit, at the other prices."""

        def terms_of(customer_id: UUID, meter_key: str, known: Terms) -> Terms:
            view, at = others.get(customer_id), known.window.start
            if view is None:
                return known
            for one in view.agreements:
                item = self._item_of(one, meter_key, at)
                if item is None or at < one.subscription.begins_at:
                    continue
                prices = {i.price_id: self.other.price_of(i.price_id) for i in one.items}
                months = {
                    each: Calendar(one.subscription.anchor_at, one.subscription.time_zone, each)
                    for each in Interval
                }
                free = limits.free_at(one.items, prices, months, at, meter_key)
                calendar = months[prices[item.price_id].interval]
                period = calendar.period(calendar.number_at(at))
                if (
                    known.limit is not None
                    and known.limit.interval == prices[item.price_id].interval
                ):
                    period = known.period
                summed = self.live.meters[meter_key].aggregation in _SUMMED
                return Terms(known.window, period, Limit(free=free, summed=summed))
            return known

        return terms_of

    def _item_of(self, one: Agreement, meter_key: str, at: datetime) -> Item | None:
        """Return the item of a meter that is active at an instant."""
        for item in one.items:
            is_active = item.active_from <= at < (item.active_until or _FAR)
            if is_active and self.other.price_of(item.price_id).meter_key == meter_key:
                return item
        return None


def compared(
    tx: Tx,
    keyring: Keyring,
    source: bytes,
    *,
    during: Period,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Compared]:
    """Yield every customer with what was billed in `during`, at today's prices and at the other's.

    `source` is the other catalog's file. Writes nothing; holds one page of customers at a time.
    Raises: Invalid naming what the other catalog lacks, or what is wrong in its file.
    """
    live, wanted = catalog.current(tx), catalog.read_file(source)
    other = OtherPrices(live, wanted)
    other.check(subscriptions.pinned(tx))
    asked = _Asked(
        tx, keyring, live, other, wanted.minimums, during, owing.Prices(live.prices_by_id)
    )
    after: UUID | None = None
    while True:
        views = subscriptions.as_stored(tx, after=after, limit=_PAGE, until=during.end)
        if not views:
            return
        after = views[-1].customer_id
        yield from asked.page([replace(view, floors={}, marks=()) for view in views])
        progress(len(views))


def _compared(
    account: Customer, ground: Ground, before: Sums, after: Sums, problem: str | None
) -> Compared:
    who = account.customer_id
    amounts = (*before, *after, *ground.billed.get(who, _NOTHING))
    net, tax, then, then_tax, billed, billed_tax = [
        Money(minor, account.currency) for minor in amounts
    ]
    by_hand = who in ground.pasts and ground.pasts[who].by_hand
    return Compared(
        account.customer_key, net, then, tax, then_tax, billed, billed_tax, by_hand, problem
    )
