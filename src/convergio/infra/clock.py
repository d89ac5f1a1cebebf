"""The only place that reads a clock; everything below the edges is given `now` (DESIGN 1.8)."""

import time
from datetime import UTC, datetime
from typing import Protocol

from convergio.kernel.errors import require


class Clock(Protocol):
    """What an edge asks for the time."""

    def now(self) -> datetime:
        """Return an aware instant in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant."""
        return datetime.now(UTC)


class VirtualClock:
    """A clock that stands still until it is moved: a year of a business in seconds."""

    def __init__(self, now: datetime) -> None:
        """Start at an aware instant."""
        require(now.tzinfo is UTC, "a virtual clock starts in UTC")
        self._now = now

    def now(self) -> datetime:
        """Return the virtual instant."""
        return self._now

    def advance_to(self, now: datetime) -> None:
        """Move forward. Raises: Fault when asked to go back."""
        require(now >= self._now, "a virtual clock never goes back")
        self._now = now


def stopwatch() -> float:
    """Return seconds of a monotonic clock, for measuring and time-outs only."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Sleep, for polling another process."""
    time.sleep(seconds)
