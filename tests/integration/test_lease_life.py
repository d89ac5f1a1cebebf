"""A lease's life on real Postgres: slices, reports, death of a node, the end of a window."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random
from time import monotonic
from uuid import UUID

import pytest

from convergio.entitlements import actions as entitlements
from convergio.entitlements import leases
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Ask, Denied, Lease, Leased, Reason
from convergio.infra.clock import pause
from convergio.infra.db import Database
from convergio.infra.ids import new_id
from convergio.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from convergio.metering import actions as metering
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status
from convergio_client.lease import Slice
from tests.fakes import quotas
from tests.fakes.meters import NOW
from tests.fakes.quota import CATALOG, Desk
from tests.fakes.quotas import METER
from tests.integration.test_meeting import is_waiting

MINUTE = timedelta(seconds=60)
MICROSECOND = timedelta(microseconds=1)
D = Decimal


def acquire(gate: Gate, wanted: str, now: datetime, lease_id: UUID | None = None) -> Lease:
    return quotas.leased(gate.leases.acquire("acme", METER, D(wanted), lease_id=lease_id, now=now))


def renew(
    gate: Gate, lease: Lease, used: str, sequence: int, now: datetime, *, wanted: str = "0"
) -> Leased:
    return gate.leases.renew(
        "acme", lease.lease_id, used=D(used), sequence=sequence, wanted=D(wanted), now=now
    )


def settle(gate: Gate, lease: Lease, used: str, now: datetime) -> Lease:
    return gate.leases.settle("acme", lease.lease_id, used=D(used), now=now).lease


def lose(database: Database, lease: Lease, now: datetime) -> Lease:
    with database.transaction() as tx:
        return leases.declare_lost(tx, "acme", lease.lease_id, now=now)


def left(gate: Gate, now: datetime) -> Decimal:
    found = gate.quota("acme", METER, now=now).remaining
    assert found is not None
    return found


def test_a_slice_is_at_most_a_tenth_of_what_is_left_and_at_least_one_unit(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    sizes = []
    while isinstance(found := gate.leases.acquire("acme", METER, D(100), now=now), Leased):
        sizes.append(int(found.lease.granted))
    assert sizes[:4] == [5, 4, 4, 3]
    assert sizes[-10:] == [1] * 10
    assert sum(sizes) == quotas.LIMIT
    assert (found.reason, found.resets_at) == (
        Reason.LIMIT_REACHED,
        gate.quota("acme", METER, now=now).resets_at,
    )
    quotas.assert_sound(database)


def test_what_expired_and_nobody_has_swept_makes_no_slice_smaller(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    quotas.allowed(gate.authorize([Ask("acme", METER, D(11))], now=now)[0])
    later = now + timedelta(seconds=quotas.HOLD_SECONDS + 1)
    assert acquire(gate, "4", later).granted == 4  # of 50; of the 39 beside the hold it would be 3
    quotas.assert_sound(database)


def test_without_a_limit_a_node_gets_what_it_wants(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")
    assert acquire(quotas.gate(database), "100000", now).granted == 100_000


def test_a_lease_lives_a_minute_and_never_beyond_its_window(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", days=0)
    gate = quotas.gate(database)
    assert acquire(gate, "1", now).expires_at == now + MINUTE
    end = gate.quota("acme", METER, now=now).resets_at
    late = end - timedelta(seconds=10)
    lease = acquire(gate, "1", late)
    assert lease.expires_at == end
    assert renew(gate, lease, "1", 1, end - timedelta(seconds=1)).lease.expires_at == end


def test_the_same_report_twice_counts_once_and_other_repeats_are_refused(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    first = renew(gate, lease, "3", 1, now, wanted="5")
    assert renew(quotas.gate(database), lease, "3", 1, now, wanted="5").lease == first.lease
    for used, sequence, code in (
        ("4", 1, "bad_sequence"),
        ("3", 0, "bad_sequence"),
        ("2", 2, "below_reported"),
    ):
        with pytest.raises(Conflict) as caught:
            renew(gate, lease, used, sequence, now)
        assert caught.value.code == code
    assert gate.quota("acme", METER, now=now).used == D(3)
    assert settle(gate, lease, "4", now) == settle(gate, lease, "4", now + MINUTE)
    with pytest.raises(Conflict):
        settle(gate, lease, "5", now)
    with pytest.raises(Conflict):
        renew(gate, lease, "5", 9, now)
    assert left(gate, now) == D(46)
    quotas.assert_sound(database)


def test_asking_again_with_the_same_id_is_the_same_lease(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    chosen = new_id(now)
    assert acquire(gate, "100", now, chosen) == acquire(gate, "100", now + MINUTE, chosen)
    assert left(gate, now) == D(45)
    with pytest.raises(Conflict):
        gate.leases.acquire("acme", "images", D(1), lease_id=chosen, now=now)


def test_asking_again_across_the_end_of_a_window_while_the_first_is_at_work_is_the_same_lease(
    database: Database, now: datetime
) -> None:
    """The two hold the locks of different windows: the id alone keeps them from being two."""
    quotas.subscribed(database, now, "acme")
    early, late = quotas.gate(database), quotas.gate(database)
    chosen = new_id(now)
    window = acquire(early, "1", now).end_at
    before, after = window - MICROSECOND, window + MICROSECOND
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as tx:
            with pytest.MonkeyPatch.context() as patched:  # the first asks in this transaction
                patched.setattr(database, "transaction", lambda: nullcontext(tx))
                first = acquire(early, "100", before, chosen)
            second = pool.submit(acquire, late, "100", after, chosen)
            while not is_waiting(database.dsn):
                assert not second.done(), second.result()
                pause(0.01)
        assert second.result(30) == first
    assert first.end_at == window
    quotas.assert_sound(database)


def test_a_dead_nodes_rest_stays_blocked_until_it_is_declared_lost_and_is_never_billed(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    renew(gate, lease, "2", 1, now)
    with pytest.raises(Conflict) as caught:
        lose(database, lease, now + MINUTE - timedelta(seconds=1))
    assert caught.value.code == "lease_live"
    later = now + timedelta(hours=1)
    entitlements.sweep(database, now=later)
    [denied] = gate.authorize([Ask("acme", METER, D(46))], now=later)
    assert isinstance(denied, Denied)
    assert left(gate, later) == D(45)
    assert lose(database, lease, later) == lose(database, lease, later + MINUTE)
    assert left(gate, later) == D(48)
    assert gate.quota("acme", METER, now=later).used == D(2)
    quotas.assert_sound(database)


def test_a_report_after_the_lease_was_declared_lost_still_counts(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    lose(database, lease, now + MINUTE)
    assert settle(gate, lease, "5", now + 2 * MINUTE).state == "settled"
    assert left(gate, now + 2 * MINUTE) == D(45)
    quotas.assert_sound(database)


def test_an_expired_lease_that_is_renewed_goes_on(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    later = now + 10 * MINUTE
    found = renew(gate, lease, "5", 1, later, wanted="4")
    assert (found.lease.granted, found.lease.expires_at) == (D(9), later + MINUTE)
    quotas.assert_sound(database)


def test_at_the_end_of_its_window_a_lease_only_reports_and_counts_in_the_old_one(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", days=0)
    gate = quotas.gate(database)
    end = gate.quota("acme", METER, now=now).resets_at
    just_before = end - timedelta(seconds=5)
    lease, silent = acquire(gate, "100", just_before), acquire(gate, "4", just_before)
    found = renew(gate, lease, "5", 1, end + MINUTE, wanted="100")
    assert (found.lease.state, found.lease.granted) == ("settled", D(5))
    fresh = gate.quota("acme", METER, now=end + MINUTE)
    assert (fresh.used, fresh.reserved) == (D(0), D(0))
    assert gate.quota("acme", METER, now=just_before).used == D(5)
    assert gate.quota("acme", METER, now=just_before).reserved == D(4)
    entitlements.sweep(database, now=end + MINUTE)
    assert gate.quota("acme", METER, now=just_before).reserved == D(0)
    assert settle(gate, silent, "4", end + 2 * MINUTE).state == "settled"
    assert gate.quota("acme", METER, now=just_before).used == D(9)
    quotas.assert_sound(database)


def test_a_plan_change_ends_a_lease_and_its_usage_stays_in_the_window_it_was_taken_from(
    database: Database, now: datetime
) -> None:
    ids = quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    change = now + timedelta(seconds=20)
    with database.transaction() as tx:
        subscriptions.cancel(tx, customer_id=ids["acme"], at_period_end=False, now=change)
    with database.transaction() as tx:
        subscriptions.create(tx, customer_id=ids["acme"], plan_key="free", start=change, now=change)
    later = change + timedelta(seconds=20)
    assert left(gate, later) == quotas.LIMIT
    found = renew(gate, lease, "5", 1, later, wanted="100")
    assert found.lease.state == "settled"
    assert left(gate, later) == quotas.LIMIT
    assert gate.quota("acme", METER, now=now).used == D(5)
    quotas.assert_sound(database)


def test_a_suspended_customers_lease_is_not_prolonged(database: Database, now: datetime) -> None:
    ids = quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    with database.transaction() as tx:
        subscriptions.set_status(tx, customer_id=ids["acme"], status=Status.PAUSED, now=now)
    found = renew(gate, lease, "2", 1, now + timedelta(seconds=30), wanted="100")
    assert (found.reason, found.lease) == (
        Reason.SUSPENDED,
        found.lease,
    )
    assert (found.lease.granted, found.lease.expires_at) == (lease.granted, lease.expires_at)
    denied = gate.leases.acquire("acme", METER, D(1), now=now)
    assert quotas.denied(denied).reason == Reason.SUSPENDED


def test_a_lease_needs_a_customer_a_meter_and_an_id_that_exist(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", "other")
    gate = quotas.gate(database)
    for key, meter, reason in (
        ("nobody", METER, Reason.UNKNOWN_CUSTOMER),
        ("acme", "nothing", Reason.UNKNOWN_METER),
    ):
        found = gate.leases.acquire(key, meter, D(1), now=now)
        assert quotas.denied(found).reason == reason
    lease = acquire(gate, "1", now)
    for key in ("other", "nobody"):
        with pytest.raises(NotFound):
            gate.leases.settle(key, lease.lease_id, used=D(0), now=now)
    with pytest.raises(Invalid):
        settle(gate, lease, "1000000000000000000", now)
    assert left(gate, now) == D(49)


class _Nodes:
    """Nodes that hammer one quota: take, renew, settle, and die with whatever they hold."""

    def __init__(self, database: Database, now: datetime) -> None:
        self.database, self.now = database, now

    def live(self, seed: int) -> tuple[Decimal, Decimal]:
        """Return what a node let through, and what of it was never reported."""
        chance, gate = Random(seed), quotas.gate(self.database)
        through = unreported = D(0)
        for _ in range(4):
            found = self._patiently(
                partial(gate.leases.acquire, "acme", METER, D(chance.randint(1, 9)), now=self.now)
            )
            if isinstance(found, Denied):
                continue
            lease = found.lease
            slice_ = Slice(lease.granted, until=monotonic() + 60)
            for sequence in range(1, chance.randint(1, 4)):
                self._work(slice_, chance)
                renewed = self._patiently(
                    partial(renew, gate, lease, str(slice_.used), sequence, self.now, wanted="3")
                )
                slice_.refill(renewed.lease.granted, monotonic() + 60)
            reported = slice_.used
            self._work(slice_, chance)
            through += D(slice_.used)
            if chance.random() < 0.4:  # it dies
                unreported += D(slice_.used) - D(reported)
            else:
                self._patiently(partial(settle, gate, lease, str(slice_.close()), self.now))
        return through, unreported

    def _work(self, slice_: Slice, chance: Random) -> None:
        for _ in range(chance.randint(0, 4)):
            if slice_.take():
                slice_.done()

    def _patiently(self, work: "partial[quotas.T]") -> "quotas.T":
        while True:
            try:
                return work()
            except Unavailable:
                continue


def test_many_nodes_at_once_never_let_more_through_than_the_limit(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    nodes = _Nodes(database, now)
    told = quotas.at_once([partial(nodes.live, seed) for seed in range(8)])
    gate = quotas.gate(database)
    found = gate.quota("acme", METER, now=now)
    through = sum((one[0] for one in told), D(0))
    unreported = sum((one[1] for one in told), D(0))
    assert found.used == through - unreported
    assert unreported <= found.reserved
    assert found.used + found.reserved <= quotas.LIMIT
    assert through <= quotas.LIMIT
    quotas.assert_sound(database)


def test_usage_of_leases_is_usage_like_any_other(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    lease = acquire(gate, "100", now)
    renew(gate, lease, "2", 1, now + timedelta(seconds=10))
    settle(gate, lease, "3.5", now + timedelta(seconds=20))
    with database.transaction() as tx:
        assert metering.verify(tx) == []
    found = gate.quota("acme", METER, now=now)
    assert (found.used, found.reserved) == (D("3.5"), D(0))


def test_what_is_not_a_sum_cannot_be_leased(database: Database) -> None:
    top = (
        b"  - {key: top, name: Top, event: ai.request, aggregation: max, value: size,\n"
        b"     where: {size: {exists: true}}}\nplans:"
    )
    kept = CATALOG.replace(b"keep: [status, model]", b"keep: [status, model, size]")
    desk = Desk(database, source=kept.replace(b"plans:", top))
    desk.subscribe("ten", "acme")
    with pytest.raises(Invalid) as caught:
        desk.gate.leases.acquire("acme", "top", D(5), now=NOW)
    assert caught.value.code == "not_leasable"
