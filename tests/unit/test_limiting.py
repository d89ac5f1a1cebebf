"""The limiter by itself: a window's worth at once, then one share of it after another."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.api import limiting
from convergio.api.limiting import Limits, Policy, TooOften
from convergio.identity.model import Principal
from convergio.infra.settings import Settings, load_settings
from convergio.kernel.errors import Invalid


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def principal(customer_id: UUID | None = None) -> Principal:
    return Principal(uuid4(), frozenset(), customer_id)


def test_a_window_s_worth_goes_at_once_and_the_next_must_wait_one_share() -> None:
    ticks = Ticks()
    policy = Policy("key", "60/minute", ticks=ticks)
    taken = [policy.take("a") for _ in range(60)]
    assert [one.wait for one in taken] == [0.0] * 60
    assert [one.left for one in taken] == list(range(59, -1, -1))
    refused = policy.take("a")
    assert refused.wait == pytest.approx(1.0)
    assert refused.headers() == {
        "ratelimit-policy": '"key";q=60;w=60',
        "ratelimit": '"key";r=0;t=60',
        "retry-after": "1",
    }
    ticks.now += 1.0
    assert policy.take("a").wait == 0
    assert policy.take("a").wait > 0
    assert policy.take("b").wait == 0


@given(
    count=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=300),
)
def test_no_stretch_of_time_ever_sees_more_than_a_burst_and_its_share(
    count: int, gaps: list[float]
) -> None:
    ticks = Ticks()
    policy = Policy("key", f"{count}/second", ticks=ticks)
    allowed: list[float] = []
    for gap in gaps:
        ticks.now += gap
        if not policy.take("a").wait:
            allowed.append(ticks.now)
    for start in range(len(allowed)):
        for end in range(start, len(allowed)):
            seconds = allowed[end] - allowed[start]
            assert end - start + 1 <= count * (1 + seconds) + 1e-3


def test_a_refused_request_costs_nothing() -> None:
    ticks = Ticks()
    policy = Policy("key", "1/minute", ticks=ticks)
    assert policy.take("a").wait == 0
    assert {policy.take("a").wait for _ in range(100)} == {60.0}
    ticks.now += 60.0
    assert policy.take("a").wait == 0


def test_memory_is_bounded_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "KEYS_MAX", 100)
    ticks = Ticks()
    policy = Policy("address", "10/minute", ticks=ticks)
    for number in range(1_000):
        ticks.now += 0.001
        policy.take(str(number))
    assert len(policy._whole_at) <= 100  # noqa: SLF001 - the bound is the claim
    assert policy.take("999").left == 8  # the newest are still known


def test_quota_08_many_keys_of_one_customer_share_its_limit() -> None:
    limits = Limits(Settings(rate_limit_customer="5/minute"), ticks=Ticks()).of_hot_routes()
    whose = uuid4()
    for _ in range(5):
        limits.check(principal(whose))
    with pytest.raises(TooOften) as caught:
        limits.check(principal(whose))
    assert caught.value.headers["ratelimit-policy"] == '"customer";q=5;w=60'
    limits.check(principal(uuid4()))


def test_a_seller_s_key_spends_of_the_customer_that_it_asks_for() -> None:
    limits = Limits(Settings(rate_limit_customer="2/minute"), ticks=Ticks()).of_hot_routes()
    key = principal()
    limits.check(key, "acme")
    limits.check(key, "acme")
    with pytest.raises(TooOften):
        limits.check(key, "acme")
    limits.check(key, "other")
    assert limits.check(key) is None


@pytest.mark.parametrize(
    ("hosts", "one"),
    [
        ([f"2001:db8:1:2::{n:x}" for n in range(1, 9)], True),
        ([f"2001:db8:1:{n:x}::1" for n in range(1, 9)], False),
        ([f"192.0.2.{n}" for n in range(1, 9)], False),
        (["192.0.2.1", "::ffff:192.0.2.1"] * 4, True),
        ([None, "", "unix:", "x"] * 2, True),
    ],
)
def test_quota_08_addresses_of_one_network_share_its_limit(
    hosts: list[str | None], one: bool
) -> None:
    limits = Limits(Settings(rate_limit_address="7/minute"), ticks=Ticks())
    for host in hosts[:7]:
        limits.check_address(host)
    if one:
        with pytest.raises(TooOften):
            limits.check_address(hosts[7])
    else:
        limits.check_address(hosts[7])


def test_without_settings_nothing_hot_is_limited() -> None:
    limits = Limits(Settings(), ticks=Ticks()).of_hot_routes()
    key = principal()
    assert all(limits.check(key, "acme") is None for _ in range(10_000))
    limits.check_address("192.0.2.1")


@pytest.mark.parametrize(
    "bad", ["10", "0/minute", "10/day", "-1/second", "10 / minute", "1e3/hour"]
)
def test_a_rate_that_is_none_stops_the_start(bad: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings({"CONVERGIO_RATE_LIMIT_KEY": bad})
    assert caught.value.field == "CONVERGIO_RATE_LIMIT_KEY"
