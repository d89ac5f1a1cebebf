"""The client's half of a lease: a slice decides alone, and a lost answer counts nothing twice."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

import httpx
import pytest

from convergio_client import Convergio
from convergio_client.errors import Unavailable
from convergio_client.lease import Lease, Slice
from convergio_client.protocol import Call, Reply, Silence

LIFE_MS = 60_000


class _Hand:
    """A clock whose hand the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_slice_allows_what_was_granted_and_not_one_more() -> None:
    hand = _Hand()
    one = Slice(3, until=160.0, clock=hand)
    assert [one.take(), one.take(2), one.take()] == [True, True, False]
    one.give_back(2)
    assert [one.take(3), one.take(2)] == [False, True]
    assert (one.left, one.used) == (0, 0)


def test_a_slice_ends_with_its_time() -> None:
    hand = _Hand()
    one = Slice(3, until=160.0, clock=hand)
    hand.now = 159.999
    assert one.take()
    hand.now = 160.0
    assert not one.take()
    one.refill(Decimal("4.5"), 170.0)
    assert one.take(Decimal("3.5"))
    assert not one.take(Decimal("0.1"))


def test_only_what_is_done_is_reported_and_running_work_counts_at_the_close() -> None:
    one = Slice(10, until=160.0, clock=_Hand())
    for _ in range(4):
        one.take()
    one.done(2)
    one.give_back()
    assert one.used == 2
    assert one.close() == 3
    assert not one.take()


def test_a_new_lease_takes_over_what_is_not_reported() -> None:
    one = Slice(10, until=160.0, clock=_Hand())
    for _ in range(5):
        one.take()
    one.done(3)
    one.restart(2)
    assert one.used == 1
    one.refill(4, 160.0)
    assert [one.take(), one.take()] == [True, False]


def test_threads_never_take_more_than_was_granted() -> None:
    one = Slice(1_000, until=time.monotonic() + 60)
    with ThreadPoolExecutor(4) as threads:
        taken = sum(threads.map(lambda _: sum(one.take() for _ in range(400)), range(4)))
    assert taken == 1_000


@dataclass
class _Server:
    """A quota behind the protocol; every answer named in `lost` is not delivered."""

    limit: int = 100
    used: int = 0
    leases: dict[str, dict[str, int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)

    def __call__(self, call: Call) -> Reply | Silence:
        body = json.loads(call.body or b"{}")
        self.asked.append(call.path)
        reply = self.answer(call.path, body)
        return Silence("lost") if len(self.asked) in self.lost else reply

    def answer(self, path: str, body: dict[str, str]) -> Reply:
        """Do the work, whether the answer arrives or not."""
        held = sum(one["granted"] - one["used"] for one in self.leases.values())
        left = self.limit - self.used - held
        if path == "/v1/leases":
            if body["lease"] not in self.leases:
                if not left:
                    denial = {"allowed": False, "reason": "limit_reached"}
                    return Reply(429, json.dumps(denial).encode())
                granted = min(left, int(body["wanted"]))
                self.leases[body["lease"]] = {"granted": granted, "used": 0, "sequence": 0}
            return self.shown(body["lease"], "open")
        name, verb = path.removeprefix("/v1/leases/").split("/")
        one = self.leases[name]
        used = int(body["used"])
        if verb == "settle" or int(body["sequence"]) > one["sequence"]:
            self.used += used - one["used"]
            one["used"] = used
            if verb == "settle":
                one["granted"] = used
                return self.shown(name, "settled")
            one["sequence"] = int(body["sequence"])
            in_hand = one["granted"] - used
            one["granted"] += min(max(0, int(body["wanted"]) - in_hand), left)
        return self.shown(name, "open")

    def shown(self, name: str, state: str) -> Reply:
        one = self.leases[name]
        found = {
            "state": state,
            "granted": str(one["granted"]),
            "used": str(one["used"]),
            "sequence": one["sequence"],
            "expires_in_ms": LIFE_MS,
        }
        return Reply(200, json.dumps(found).encode())


@pytest.fixture
def server() -> _Server:
    """A quota of 100."""
    return _Server()


def _use(lease: Lease, count: int) -> int:
    """Use so much, waiting for the renewing thread; return how much was allowed."""
    allowed, deadline = 0, time.monotonic() + 10
    while allowed < count and time.monotonic() < deadline:
        if lease.take():
            lease.done()
            allowed += 1
        elif lease.denied is not None:
            break
        else:
            time.sleep(0.005)
    return allowed


def test_a_lease_renews_itself_and_settles_what_was_used(server: _Server) -> None:
    with Lease(server, "acme", "questions", wanted=20) as lease:
        assert _use(lease, 50) == 50
    assert server.used == 50
    assert server.asked[0] == "/v1/leases"
    assert server.asked[-1].endswith("/settle")
    assert len(server.leases) == 1


def test_answers_that_are_lost_cost_nothing_and_count_nothing_twice(server: _Server) -> None:
    server.lost = {1, 3, 4}
    with Lease(server, "acme", "questions", wanted=40) as lease:
        assert _use(lease, 45) == 45
    assert server.used == 45
    assert len(server.leases) == 1


def test_a_full_quota_is_a_denial_and_not_an_error(server: _Server) -> None:
    server.limit = 0
    with Lease(server, "acme", "questions") as lease:
        assert not lease.take()
        assert lease.denied is not None
        assert lease.denied.reason == "limit_reached"
    assert server.asked == ["/v1/leases"]


def test_without_a_server_nothing_is_allowed(server: _Server) -> None:
    def unreachable(call: Call) -> Reply | Silence:
        if call.path.endswith("/settle"):
            return Reply(404, b"{}")
        raise Unavailable("no route to it")

    with Lease(unreachable, "acme", "questions") as lease:
        assert not lease.take()
        assert lease.denied is None


def test_the_client_hands_out_leases(server: _Server) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        reply = server(Call(request.method, request.url.path, request.content))
        assert isinstance(reply, Reply)
        return httpx.Response(reply.status, content=reply.body)

    transport = httpx.MockTransport(answer)
    with (
        Convergio("http://billing.test", "key", transport=transport) as billing,
        billing.lease("acme", "questions", wanted=10) as lease,
    ):
        assert _use(lease, 7) == 7
    assert server.used == 7
