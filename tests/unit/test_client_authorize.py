"""Asking before it happens: the block decides what is counted, in both clients alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from convergio_client import (
    AsyncConvergio,
    Convergio,
    Denied,
    Invalid,
    LimitReached,
    NoSubscription,
    Permit,
    Rejected,
    SpendCap,
    Suspended,
    Unavailable,
)
from tests.fakes.billing import FakeBilling, loses_the_answer, says

WAYS = ["blocking", "blocking with spool", "awaiting", "awaiting with spool"]


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


class Way:
    """One of the four ways to use the client, behind one blocking face."""

    def __init__(self, way: str, billing: FakeBilling, folder: Path) -> None:
        spool = folder / "usage.spool" if "spool" in way else None
        self.loop = asyncio.new_event_loop()
        self.spooled = spool is not None
        options: dict[str, Any] = {"spool": spool, "patience_seconds": 0.3}
        self.client: Convergio | AsyncConvergio
        if way.startswith("blocking"):
            self.client = Convergio("http://b.test", "key", transport=billing.transport, **options)
        else:
            self.client = AsyncConvergio(
                "http://b.test", "key", transport=billing.transport,
                spool_transport=billing.transport, **options,
            )  # fmt: skip

    def do(self, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any method of either client
        """Call a method, and await it when it is to be awaited."""
        found = call(self.client)
        return self.loop.run_until_complete(found) if isinstance(found, Coroutine) else found

    def authorized(self, work: Callable[[Permit], None], quantity: int = 1) -> None:
        """Run a block under a permit."""
        client = self.client
        if isinstance(client, Convergio):
            with client.authorize("acme", "questions", quantity) as permit:
                work(permit)
            return

        async def awaited(client: AsyncConvergio) -> None:
            async with client.authorize("acme", "questions", quantity) as permit:
                work(permit)

        self.loop.run_until_complete(awaited(client))

    def settled(self) -> None:
        """Wait until nothing is under way."""
        assert self.do(lambda client: client.flush(10))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, billing: FakeBilling, tmp_path: Path) -> Iterator[Way]:
    made = Way(request.param, billing, tmp_path)
    yield made
    billing.down = False
    made.do(lambda client: client.close(0.2))
    made.loop.run_until_complete(made.loop.shutdown_default_executor())
    made.loop.close()


def nothing(_: Permit) -> None:
    pass


def test_a_block_that_ends_well_is_counted(way: Way, billing: FakeBilling) -> None:
    way.authorized(nothing, quantity=3)
    way.settled()
    assert billing.used == 3
    assert not billing.held


def test_what_was_really_used_is_counted(way: Way, billing: FakeBilling) -> None:
    def work(permit: Permit) -> None:
        assert permit.quantity == 3
        assert list(billing.held.values()) == [3]
        permit.used = Decimal("1.5")

    way.authorized(work, quantity=3)
    way.settled()
    assert billing.used == Decimal("1.5")


def test_a_block_that_fails_counts_nothing_and_its_error_passes(
    way: Way, billing: FakeBilling
) -> None:
    def fail(_: Permit) -> None:
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="own"):
        way.authorized(fail)
    way.settled()
    assert not billing.used
    assert not billing.held


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (429, "limit_reached", LimitReached), (403, "suspended", Suspended),
        (403, "no_subscription", NoSubscription), (402, "spend_cap", SpendCap),
        (404, "unknown_meter", Denied),
    ],
)  # fmt: skip
def test_a_denied_block_does_not_run(
    way: Way, billing: FakeBilling, status: int, reason: str, kind: type[Denied]
) -> None:
    billing.denial = (status, reason)
    ran: list[Permit] = []
    with pytest.raises(kind) as caught:
        way.authorized(ran.append)
    assert (caught.value.reason, caught.value.status, ran) == (reason, status, [])
    assert len(billing.requests) == 1, "a denial is an answer and is not asked again"


def test_a_block_does_not_run_when_nobody_answers(way: Way, billing: FakeBilling) -> None:
    billing.down = True
    ran: list[Permit] = []
    with pytest.raises(Unavailable):
        way.authorized(ran.append)
    assert ran == []


def test_a_question_whose_answer_is_lost_holds_once(way: Way, billing: FakeBilling) -> None:
    billing.faults = [loses_the_answer(billing), loses_the_answer(billing)]
    permit = way.do(lambda client: client.reserve("acme", "questions", 3))
    assert billing.held == {permit.reservation: 3}
    assert len(billing.requests) == 3


def test_an_id_of_the_callers_own_is_one_hold(way: Way, billing: FakeBilling) -> None:
    first, second = (
        way.do(lambda client: client.reserve("acme", "questions", 2, id="request-7"))
        for _ in range(2)
    )
    other = way.do(lambda client: client.reserve("acme", "questions", 2))
    assert first == second
    assert billing.held == {first.reservation: 2, other.reservation: 2}


@pytest.mark.parametrize("wrong", ["", "x" * 129, "a\0"])
def test_an_id_that_cannot_be_one_is_refused(way: Way, billing: FakeBilling, wrong: str) -> None:
    with pytest.raises(Invalid):
        way.do(lambda client: client.reserve("acme", "questions", id=wrong))
    assert billing.requests == []


def test_a_commit_whose_answer_is_lost_counts_once(way: Way, billing: FakeBilling) -> None:
    def work(_: Permit) -> None:
        billing.faults = [loses_the_answer(billing), says(503)]

    way.authorized(work)
    way.settled()
    assert billing.used == 1


def test_a_failing_block_keeps_its_own_error_when_the_release_fails_too(
    way: Way, billing: FakeBilling
) -> None:
    def fail(_: Permit) -> None:
        billing.down = True
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="own"):
        way.authorized(fail)


def test_a_server_that_dies_meanwhile_loses_a_commit_only_without_a_spool(
    way: Way, billing: FakeBilling
) -> None:
    def work(_: Permit) -> None:
        billing.down = True

    if way.spooled:
        way.authorized(work)
        billing.down = False
        way.settled()
        assert billing.used == 1
    else:
        with pytest.raises(Unavailable):
            way.authorized(work)


def test_a_commit_survives_the_process(billing: FakeBilling, tmp_path: Path) -> None:
    spool = tmp_path / "usage.spool"
    first = Convergio("http://b.test", "key", spool=spool, transport=billing.transport)
    permit = first.reserve("acme", "questions", 2)
    billing.down = True
    first.commit(permit)
    first.close(0)
    billing.down = False
    with Convergio("http://b.test", "key", spool=spool, transport=billing.transport) as second:
        assert second.flush(10)
    assert billing.used == 2


def test_a_settlement_that_is_refused_is_kept_with_its_reason(
    billing: FakeBilling, tmp_path: Path
) -> None:
    spool = tmp_path / "usage.spool"
    with Convergio("http://b.test", "key", spool=spool, transport=billing.transport) as client:
        permit = client.reserve("acme", "questions", 2)
        client.commit(permit)
        assert client.flush(10)
        client.commit(permit, used=1)
        assert client.flush(10)
        (one,) = client.rejected()
    assert (one.kind, one.target, one.reason) == ("commit", permit.reservation, "committed")
    assert billing.used == 2


def test_a_permit_can_be_settled_by_hand(way: Way, billing: FakeBilling) -> None:
    permit = way.do(lambda client: client.reserve("acme", "questions", 5))
    way.do(lambda client: client.commit(permit, used=4))
    way.do(lambda client: client.commit(permit, used=4))
    other = way.do(lambda client: client.reserve("acme", "questions"))
    way.do(lambda client: client.release(other))
    way.do(lambda client: client.release(other))
    way.settled()
    assert billing.used == 4
    assert not billing.held


def test_a_quota_is_read_exactly(way: Way, billing: FakeBilling) -> None:
    way.authorized(nothing, quantity=7)
    way.settled()
    found = way.do(lambda client: client.quota("acme", "questions"))
    assert (found.limit, found.used, found.remaining, found.included) == (50, 7, 43, None)
    with pytest.raises(Rejected):
        way.do(lambda client: client.usage("nothing"))


def test_tracking_works_alike(way: Way, billing: FakeBilling) -> None:
    names = [way.do(lambda client: client.track("acme", "ai.request")) for _ in range(3)]
    way.settled()
    assert [name for _, name in billing.events] == names


def test_a_canceled_block_gives_its_quota_back(billing: FakeBilling, tmp_path: Path) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncConvergio]:
        async with AsyncConvergio(
            "http://b.test", "key", spool=tmp_path / "s",
            transport=billing.transport, spool_transport=billing.transport,
        ) as client:  # fmt: skip
            yield client

    async def story() -> None:
        async with opened() as client:
            held = asyncio.Event()

            async def block() -> None:
                async with client.authorize("acme", "questions"):
                    held.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(block())
            await held.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.flush(10)

    asyncio.run(story())
    assert not billing.used
    assert not billing.held
