"""How often somebody may ask: the generic cell rate algorithm, one number a key in this process.

The number is when the allowance of a key would be whole again; a request moves it by one share of
the window, and is refused while that would lie more than a window ahead. There is no timer and no
list of past requests, so an asker costs one look-up however often they ask. A process counts what
it serves itself: with several, a limit is that many times what it says.

Reference: ITU-T I.371, the virtual scheduling algorithm; the header fields are those of the IETF's
draft-ietf-httpapi-ratelimit-headers.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from convergio.identity.model import Principal
from convergio.infra.clock import stopwatch
from convergio.infra.settings import Settings
from convergio.kernel.errors import LimitExceeded

SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600}
KEYS_MAX: Final = 100_000
_SECOND: Final = 1_000_000_000  # whole nanoseconds add up exactly
_NETWORK_BITS: Final = 64  # what one subscriber is commonly given of IPv6
Ticks = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands after a request: `wait` is 0 for one that is allowed; all in seconds."""

    name: str
    requests: int
    window: int
    left: int
    whole_in: float
    wait: float

    def headers(self) -> dict[str, str]:
        """Return the header fields that tell it."""
        told = {
            "ratelimit-policy": f'"{self.name}";q={self.requests};w={self.window}',
            "ratelimit": f'"{self.name}";r={self.left};t={ceil(self.whole_in)}',
        }
        return told | ({"retry-after": str(max(1, ceil(self.wait)))} if self.wait else {})


class TooOften(LimitExceeded):
    """Somebody asks more often than a limit allows; nothing was done or counted."""

    code = "rate_limited"

    def __init__(self, standing: Standing) -> None:
        """Say which limit, and when to come back."""
        wait = max(1, ceil(standing.wait))
        super().__init__(f"the limit of requests of this {standing.name} is reached; wait {wait} s")
        self.headers = standing.headers()


class Policy:
    """One limit: so many requests in a window of so many seconds, for each key."""

    def __init__(self, name: str, rate: str, *, ticks: Ticks = stopwatch) -> None:
        """Read a rate such as `600/minute`."""
        count, _, unit = rate.partition("/")
        self.name = name
        self.requests = int(count)
        self.window = SECONDS[unit]
        self._whole = self.window * _SECOND
        self._share = self._whole // self.requests
        self._ticks = ticks
        self._whole_at: dict[str, int] = {}

    def take(self, key: str) -> Standing:
        """Count one request of a key, unless it is one too many."""
        now = int(self._ticks() * _SECOND)
        whole_at = max(self._whole_at.get(key, now), now)
        moved = whole_at + self._share
        wait = moved - now - self._whole
        if wait > 0:
            return self._standing(whole_at - now, wait)
        if len(self._whole_at) >= KEYS_MAX and key not in self._whole_at:
            self._forget(now)
        self._whole_at[key] = moved
        return self._standing(moved - now, 0)

    def _standing(self, whole_in: int, wait: int) -> Standing:
        left = (self._whole - whole_in) // self._share
        return Standing(
            self.name, self.requests, self.window, left, whole_in / _SECOND, wait / _SECOND
        )

    def _forget(self, now: int) -> None:
        """Drop the keys whose allowance is whole, or else the older half: memory is bounded."""
        kept = {key: at for key, at in self._whole_at.items() if at > now}
        if len(kept) >= KEYS_MAX:
            kept = dict(list(kept.items())[KEYS_MAX // 2 :])
        self._whole_at = kept


class Limits:
    """The limits of one kind of routes; one that is not set costs nothing.

    A key has a limit for each kind, and an address and a customer one for both together. Used from
    the event loop only, so nothing is locked.
    """

    def __init__(self, settings: Settings, *, ticks: Ticks = stopwatch) -> None:
        """Read the limits of a process; these are of all routes but events and decisions."""

        def policy(name: str, rate: str) -> Policy | None:
            return Policy(name, rate, ticks=ticks) if rate else None

        self._key = policy("key", settings.rate_limit_key)
        self._hot_key = policy("key", settings.rate_limit_hot)
        self._customer = policy("customer", settings.rate_limit_customer)
        self._address = policy("address", settings.rate_limit_address)

    def of_hot_routes(self) -> "Limits":
        """Return the limits of events and decisions, which count customers and addresses here."""
        hot = copy(self)
        hot._key = self._hot_key  # noqa: SLF001 - one of its own kind
        return hot

    def check_address(self, host: str | None) -> None:
        """Count a request of an address before anything is known of who asks. Raises: TooOften."""
        if self._address is not None:
            _allow(self._address.take(_network(host)))

    def check(self, principal: Principal, customer: str | None = None) -> Standing | None:
        """Count a request of a key and of the customer whom it speaks for.

        That is the customer to whom the key belongs, or else the one that the request names. Return
        the standing that is nearest to its end, if there is any limit. Raises: TooOften.
        """
        nearest = None
        if self._key is not None:
            nearest = _allow(self._key.take(principal.api_key_id.hex))
        if self._customer is not None:
            whose = customer if principal.customer_id is None else principal.customer_id.hex
            if whose is not None:
                found = _allow(self._customer.take(whose))
                if nearest is None or found.left < nearest.left:
                    nearest = found
        return nearest


def _allow(found: Standing) -> Standing:
    if found.wait:
        raise TooOften(found)
    return found


def _network(host: str | None) -> str:
    """Return an IPv4 address, or the network of an IPv6 one: a host has as many as it likes."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))
    return str(address)
