"""Reservations, leases, expiry and crashes in any order: the quota is what a pure model says.

The machine drives the real gate on real Postgres, one customer an example, beside a model in plain
Python. Two gates take turns, as two server processes do. What nodes have really let through is
summed in the model, reported or not, and never passes the limit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from convergio.entitlements import actions as entitlements
from convergio.entitlements import leases
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Allowed, Ask, Denied, Leased, Reason
from convergio.entitlements.rules import slice_of
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict
from tests.fakes import quotas

SECONDS = st.sampled_from([1, 5, 20, 59, 60, 61, 150, 301])
QUANTITIES = st.sampled_from([Decimal(text) for text in ("1", "2", "0.5", "3.000000001", "20")])
PLACES = st.integers(0, 7)
ZERO = Decimal(0)


@dataclass
class Held:
    """What the model knows of a reservation."""

    quantity: Decimal
    expires_at: datetime


@dataclass
class Node:
    """A gateway node: what it was granted, what it let through, and what it has reported."""

    lease_id: UUID
    granted: Decimal
    expires_at: datetime
    used: Decimal = ZERO
    reported: Decimal = ZERO
    sequence: int = 0
    alive: bool = True
    blocks: bool = True

    @property
    def held(self) -> Decimal:
        """What it keeps from others."""
        return max(ZERO, self.granted - self.reported) if self.blocks else ZERO


@dataclass
class Model:
    """The quota in plain Python."""

    now: datetime
    used: Decimal = ZERO
    reservations: dict[UUID, Held] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    @property
    def reserved(self) -> Decimal:
        """What live reservations and open leases hold."""
        live = [one.quantity for one in self.reservations.values() if one.expires_at > self.now]
        return sum(live, ZERO) + sum((node.held for node in self.nodes), ZERO)

    @property
    def left(self) -> Decimal:
        """What is left of the limit."""
        return max(ZERO, quotas.LIMIT - self.used - self.reserved)

    @property
    def let_through(self) -> Decimal:
        """What really happened: committed, or decided by a node, reported or not."""
        unreported = [node.used - node.reported for node in self.nodes if node.blocks]
        return self.used + sum(unreported, ZERO)


class Quota(RuleBasedStateMachine):
    """What servers, nodes and operators do to one customer's quota."""

    database: Database
    start: datetime
    keys: Iterator[str]

    def __init__(self) -> None:
        super().__init__()
        self.key = next(self.keys)
        self.model = Model(self.start)
        quotas.subscribed(self.database, self.start, self.key)
        self.gates = [quotas.gate(self.database), quotas.gate(self.database)]
        self.turn = count()

    def gate(self) -> Gate:
        return self.gates[next(self.turn) % 2]

    def node(self, place: int) -> Node | None:
        living = [node for node in self.model.nodes if node.alive]
        return living[place % len(living)] if living else None

    @rule(seconds=SECONDS)
    def time_goes_by(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    @rule(quantity=QUANTITIES)
    def authorize(self, quantity: Decimal) -> None:
        [found] = self.gate().authorize([Ask(self.key, quotas.METER, quantity)], now=self.model.now)
        if quantity <= self.model.left:
            assert isinstance(found, Allowed)
            held = Held(quantity, found.expires_at)
            self.model.reservations[found.reservation_id] = held
        else:
            assert isinstance(found, Denied)
            assert found.reason == Reason.LIMIT_REACHED

    @precondition(lambda self: self.model.reservations)
    @rule(place=PLACES, share=st.sampled_from(["0", "0.5", "1"]))
    def commit(self, place: int, share: str) -> None:
        reservation, held = self._take_reservation(place)
        actual = held.quantity * Decimal(share)
        if held.expires_at <= self.model.now:
            actual = min(actual, self.model.left)  # a late caller may pass the limit; not this one
        actual = actual.quantize(Decimal("1e-9"), rounding="ROUND_DOWN")
        self.gate().commit(self.key, reservation, actual=actual, now=self.model.now)
        self.model.used += actual

    @precondition(lambda self: self.model.reservations)
    @rule(place=PLACES)
    def release(self, place: int) -> None:
        reservation, _ = self._take_reservation(place)
        self.gate().release(self.key, reservation, now=self.model.now)

    def _take_reservation(self, place: int) -> tuple[UUID, Held]:
        found = sorted(self.model.reservations)[place % len(self.model.reservations)]
        return found, self.model.reservations.pop(found)

    @rule()
    def sweep(self) -> None:
        entitlements.sweep(self.database, now=self.model.now)

    @rule(wanted=st.sampled_from(["1", "4", "100", "0.25"]))
    def acquire(self, wanted: str) -> None:
        expected = slice_of(self.model.left, Decimal(wanted))
        found = self.gate().leases.acquire(
            self.key, quotas.METER, Decimal(wanted), now=self.model.now
        )
        if not expected:
            assert isinstance(found, Denied)
            assert found.reason == Reason.LIMIT_REACHED
            return
        assert isinstance(found, Leased)
        assert found.lease.granted == expected
        self.model.nodes.append(Node(found.lease.lease_id, expected, found.lease.expires_at))

    @rule(place=PLACES, quantity=QUANTITIES)
    def a_node_decides(self, place: int, quantity: Decimal) -> None:
        node = self.node(place)
        if (
            node
            and self.model.now < node.expires_at
            and node.blocks
            and node.used + quantity <= node.granted
        ):
            node.used += quantity

    @rule(place=PLACES, wanted=st.sampled_from(["0", "2", "100"]), twice=st.booleans())
    def renew(self, place: int, wanted: str, twice: bool) -> None:
        node = self.node(place)
        if node is None:
            return
        self.model.used += node.used - node.reported
        blocked, node.reported = node.blocks, node.used
        in_hand = max(ZERO, node.granted - node.used)
        need = max(ZERO, Decimal(wanted) - in_hand)
        more = slice_of(self.model.left, need) if blocked and need else ZERO
        node.sequence += 1
        for _ in range(2 if twice else 1):
            found = self.gate().leases.renew(
                self.key,
                node.lease_id,
                used=node.used,
                sequence=node.sequence,
                wanted=Decimal(wanted),
                now=self.model.now,
            )
        if not blocked:
            assert found.lease.state == "settled"
            node.alive = False
            return
        node.granted += more
        assert found.lease.granted == node.granted
        node.expires_at = found.lease.expires_at

    @rule(place=PLACES, twice=st.booleans())
    def settle(self, place: int, twice: bool) -> None:
        node = self.node(place)
        if node is None:
            return
        for _ in range(2 if twice else 1):
            found = self.gate().leases.settle(
                self.key, node.lease_id, used=node.used, now=self.model.now
            )
        assert found.lease.state == "settled"
        self.model.used += node.used - node.reported
        node.reported, node.alive, node.blocks = node.used, False, False

    @rule(place=PLACES)
    def a_node_crashes(self, place: int) -> None:
        node = self.node(place)
        if node is not None:
            node.alive = False

    @precondition(lambda self: any(not node.alive for node in self.model.nodes))
    @rule(place=PLACES)
    def a_dead_node_comes_back_and_settles(self, place: int) -> None:
        dead = [node for node in self.model.nodes if not node.alive]
        node = dead[place % len(dead)]
        late = node.used - node.reported
        if not node.blocks and late > self.model.left:
            return  # an operator gave its rest to others: what it did may pass the limit
        self.gate().leases.settle(self.key, node.lease_id, used=node.used, now=self.model.now)
        self.model.used += late
        node.reported, node.blocks = node.used, False

    @precondition(lambda self: any(node.blocks and not node.alive for node in self.model.nodes))
    @rule(place=PLACES)
    def an_operator_declares_it_lost(self, place: int) -> None:
        dead = [node for node in self.model.nodes if node.blocks and not node.alive]
        node = dead[place % len(dead)]
        with self.database.transaction() as tx:
            if self.model.now < node.expires_at:
                with pytest.raises(Conflict):
                    leases.declare_lost(tx, self.key, node.lease_id, now=self.model.now)
            else:
                leases.declare_lost(tx, self.key, node.lease_id, now=self.model.now)
                node.blocks = False

    @invariant()
    def the_quota_reads_as_the_model(self) -> None:
        found = self.gate().quota(self.key, quotas.METER, now=self.model.now)
        assert found.used == self.model.used
        assert found.reserved == self.model.reserved
        assert found.remaining == self.model.left
        assert (found.reason == Reason.LIMIT_REACHED) is (self.model.left == 0)

    @invariant()
    def nothing_is_oversold(self) -> None:
        assert self.model.let_through + sum(
            (one.quantity for one in self.model.reservations.values()
             if one.expires_at > self.model.now), ZERO
        ) <= quotas.LIMIT  # fmt: skip

    def teardown(self) -> None:
        quotas.assert_sound(self.database)


def test_the_quota_never_oversells_with_leases_expiry_and_crashes_interleaved(
    database: Database, now: datetime
) -> None:
    keys = (f"customer-{number}" for number in count())
    machine = type("Machine", (Quota,), {"database": database, "start": now, "keys": keys})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=50))
