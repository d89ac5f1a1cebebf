"""The client against a real server, and the tests' own fake held to the same answers."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from convergio_client import (
    AsyncConvergio,
    Convergio,
    Denied,
    LimitReached,
    Rejected,
    Spool,
    Unauthorized,
)
from tests.e2e.conftest import Served
from tests.fakes.billing import FakeBilling


@dataclass
class Place:
    """Where a client sends to, and customers that exist there."""

    options: dict[str, Any]
    customer: str
    real: bool

    def client(self, **more: Any) -> Convergio:  # noqa: ANN401 - any of the client's own options
        """Return a client."""
        return Convergio(**{**self.options, **more})


def numbers(*quantities: Decimal | None) -> str:
    """Return quantities as a line of text."""
    return " ".join("none" if one is None else f"{one.normalize():f}" for one in quantities)


@pytest.fixture(params=["real", "fake"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "fake":
        fake = FakeBilling()
        options = {"url": "http://b.test", "key": "key", "transport": fake.transport}
        yield Place(options, "acme", real=False)
        return
    served: Served = request.getfixturevalue("served")
    yield Place({"url": served.url, "key": served.key}, served.customer("free"), real=True)


def test_usage_is_counted_once_and_read_back(place: Place, tmp_path: Path) -> None:
    with place.client(spool=tmp_path / "usage.spool", source="gateway") as client:
        for _ in range(30):
            client.track(place.customer, "ai.request", {"quantity": Decimal("0.5")})
        assert client.flush(20)
        found = client.quota(place.customer, "questions")
        assert list(client.rejected()) == []
        if place.real:
            assert numbers(found.used, found.limit, found.remaining) == "15 50 35"
            (month,) = client.usage("questions", customer=place.customer)
            assert numbers(month.quantity) == "15"
            assert month.events == 30


def test_an_id_of_the_callers_own_is_one_event(place: Place, tmp_path: Path) -> None:
    at = datetime.now(UTC)  # noqa: TID251 - the server reads the real clock too
    with place.client(spool=tmp_path / "usage.spool") as client:
        for quantity in (1, 1, 2):
            client.track(place.customer, "ai.request", {"quantity": quantity}, id="order", time=at)
        assert client.flush(20)
        assert [one.reason for one in client.rejected()] == ["other_payload"]
    with place.client() as client:
        client.track(place.customer, "ai.request", {"quantity": 1}, id="order", time=at)
        with pytest.raises(Rejected, match="other_payload"):
            client.track(place.customer, "ai.request", {"quantity": 1}, id="order")


def test_a_lease_decides_in_this_process(place: Place) -> None:
    if not place.real:
        pytest.skip("the fake hands out no leases")
    with place.client() as client:
        with client.lease(place.customer, "questions", wanted=30) as lease:
            assert lease.take(2)
            lease.done(2)
        found = client.quota(place.customer, "questions")
        assert numbers(found.used, found.reserved) == "2 0"


def test_a_hard_limit_denies_the_block(place: Place) -> None:
    with place.client() as client:
        with client.authorize(place.customer, "questions", 50) as permit:
            permit.used = 49
        with client.authorize(place.customer, "questions"):
            pass
        with pytest.raises(LimitReached) as caught, client.authorize(place.customer, "questions"):
            raise AssertionError("it ran")
        found = client.quota(place.customer, "questions")
    assert caught.value.resets_at == found.resets_at
    assert caught.value.status == 429
    assert numbers(found.used, found.reserved, found.remaining) == "50 0 0"


def test_a_failed_block_gives_back(place: Place) -> None:
    with place.client() as client:
        with pytest.raises(KeyError), client.authorize(place.customer, "questions", 50):
            raise KeyError
        found = client.quota(place.customer, "questions")
    assert numbers(found.used, found.reserved, found.remaining) == "0 0 50"


def test_settling_twice_is_once_and_otherwise_a_conflict(place: Place) -> None:
    with place.client() as client:
        permit = client.reserve(place.customer, "questions", 5)
        client.commit(permit, used=4)
        client.commit(permit, used=4)
        with pytest.raises(Rejected) as caught:
            client.commit(permit, used=3)
        assert caught.value.status == 409
        assert client.quota(place.customer, "questions").used == 4


def test_who_is_not_known_is_denied_or_rejected(place: Place, tmp_path: Path) -> None:
    with place.client(spool=tmp_path / "usage.spool") as client:
        with pytest.raises(Denied) as denied:
            client.reserve("nobody-has-this-key", "questions")
        assert (denied.value.reason, denied.value.status) == ("unknown_customer", 404)
        name = client.track("nobody-has-this-key", "ai.request")
        assert client.flush(20)
        assert [(one.target, one.reason) for one in client.rejected()] == [
            (name, "unknown_customer")
        ]
    with place.client() as client, pytest.raises(Rejected, match="unknown_customer"):
        client.track("nobody-has-this-key", "ai.request")


def test_a_wrong_key_loses_nothing(place: Place, tmp_path: Path) -> None:
    wrong = place.client(key="cvg_live_wrong", spool=tmp_path / "usage.spool")
    wrong.track(place.customer, "ai.request")
    assert not wrong.flush(0.5)
    with pytest.raises(Unauthorized):
        wrong.quota(place.customer, "questions")
    wrong.close(0)
    with place.client(spool=tmp_path / "usage.spool") as right:
        assert right.flush(20)
        assert list(right.rejected()) == []


@pytest.mark.parametrize("at_exit", [True, False])
def test_a_process_that_just_ends_loses_nothing(
    served: Served, tmp_path: Path, *, at_exit: bool
) -> None:
    customer = served.customer("free")
    script = (
        "import sys; from convergio_client import Convergio\n"
        "url, key, customer, spool = sys.argv[1:]\n"
        f"Convergio(url, key, spool=spool, flush_at_exit={at_exit}).track(customer, 'ai.request')"
    )
    spool = tmp_path / "usage.spool"
    words = [served.url, served.key, customer, str(spool)]
    subprocess.run([sys.executable, "-W", "error", "-c", script, *words], check=True, timeout=60)
    if at_exit:
        assert served.used(customer) == 1
    with Convergio(served.url, served.key, spool=Spool(spool, lease_seconds=0.1)) as heir:
        deadline = 40  # a claim of the ended process is free when its lease ends
        assert heir.flush(deadline)
    assert served.used(customer) == 1


def test_the_awaiting_client_does_the_same(served: Served, tmp_path: Path) -> None:
    customer = served.customer("free")

    async def story() -> None:
        async with AsyncConvergio(served.url, served.key, spool=tmp_path / "usage.spool") as client:
            await client.track(customer, "ai.request", {"quantity": 2})

            async def ask() -> bool:
                try:
                    async with client.authorize(customer, "questions"):
                        await asyncio.sleep(0)
                except LimitReached:
                    return False
                return True

            assert await client.flush(20)
            answers = await asyncio.gather(*[ask() for _ in range(60)])
            assert sum(answers) == 48
            assert await client.flush(20)
            found = await client.quota(customer, "questions")
            assert numbers(found.used, found.remaining) == "50 0"

    asyncio.run(story())
    assert served.used(customer) == 50
