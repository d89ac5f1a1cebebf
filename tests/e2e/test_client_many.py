"""Many events, corrections and an awaited lease, through the client against a real server."""

import asyncio
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from convergio_client import AsyncConvergio, Convergio, Event, LimitReached, SomeRejected
from tests.e2e.conftest import Served


@pytest.fixture(scope="module")
def correcting(served: Served) -> str:
    """A key that may also void and amend."""
    scopes = ("usage:write", "usage:read", "usage:correct", "quota:read")
    words = [word for scope in scopes for word in ("--scope", scope)]
    made = subprocess.run(
        ["convergio", "apikey", "create", "corrections", *words],
        env=dict(served.environment), check=True, capture_output=True, text=True,
    )  # fmt: skip
    return made.stdout.strip()


@pytest.mark.parametrize("spooled", [True, False])
def test_a_packed_batch_counts_as_a_plain_one_does(
    served: Served, tmp_path: Path, *, spooled: bool
) -> None:
    customer = served.customer()
    spool = tmp_path / "usage.spool" if spooled else None
    with Convergio(served.url, served.key, spool=spool) as client:
        events = [
            Event(
                customer, "ai.request", {"quantity": "0.5", "model": "m" * 50}, id=f"{customer}{n}"
            )
            for n in range(2_100)
        ]
        client.track_many(events)
        assert client.flush(30)
    assert served.used(customer) == 1_050


def test_what_is_refused_of_many_is_named_and_the_rest_counts(served: Served) -> None:
    customer = served.customer()
    events = [Event(name, "ai.request") for name in (customer, "nobody-has-this-key", customer)]
    with Convergio(served.url, served.key) as client, pytest.raises(SomeRejected) as caught:
        client.track_many(events)
    assert [one.reason for one in caught.value.refusals] == ["unknown_customer"]
    assert served.used(customer) == 2


def test_an_event_is_amended_then_taken_back(served: Served, correcting: str) -> None:
    customer = served.customer()
    with Convergio(served.url, correcting) as client:
        name = client.track(customer, "ai.request", {"quantity": 5})
        assert served.used(customer) == 5
        client.amend(customer, name, {"quantity": Decimal("1.5")})
        assert served.used(customer) == Decimal("1.5")
        client.void(customer, name)
        assert served.used(customer) == 0
        found = client.usage("questions", customer=customer, by_group=True)
        assert sum((one.quantity for one in found), Decimal(0)) == 0


def test_an_awaited_lease_decides_without_waiting_and_gives_back_the_rest(served: Served) -> None:
    customer = served.customer("free")

    async def story() -> None:
        async with AsyncConvergio(served.url, served.key) as client:
            async with client.lease(customer, "questions", wanted=20) as lease:
                assert all(lease.take() for _ in range(3))
                lease.done(3)
                held = await client.quota(customer, "questions")
                assert held.reserved > 0
            found = await client.quota(customer, "questions")
            assert found.used == 3
            assert found.reserved == 0
            with pytest.raises(LimitReached):
                await client.reserve(customer, "questions", 48)

    asyncio.run(story())
