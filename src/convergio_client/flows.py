"""Conversations with the server as generators: what to send, how long to wait, when to give up.

A flow yields a `Call` and is sent a `Reply` or `Silence`, or yields a `Pause` and is sent None.
It never does I/O: `client.py` runs flows with a blocking connection, `aio.py` with an awaited one.
"""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from convergio_client import protocol
from convergio_client.errors import Rejected, SomeRejected, Unavailable
from convergio_client.model import Permit, Quantity, Quota, Refusal, Usage, Verdict
from convergio_client.protocol import Call, Reply, Silence
from convergio_client.spool import Item

T = TypeVar("T")
_random: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next call."""

    seconds: float


Step = Call | Pause
Outcome = Reply | Silence | None
Flow = Generator[Step, Outcome, T]


@dataclass(frozen=True, slots=True)
class Patience:
    """How a call is repeated: exponential backoff with full jitter, within a total time."""

    seconds_max: float = 10.0
    first_pause_seconds: float = 0.05
    pause_seconds_max: float = 30.0

    def pause(self, failures: int, asked: float | None) -> float:
        """Return how long to wait after so many failures; never less than the server asked for.

        Full jitter (AWS, "Exponential Backoff And Jitter"): anything from 0 to the current top.
        """
        top = min(self.pause_seconds_max, self.first_pause_seconds * 2.0 ** min(failures, 32))
        return (asked or 0.0) + _random.uniform(0.0, top)


def answered(call: Call, patience: Patience) -> Flow[Reply]:
    """Repeat a call until it is answered for good.

    Raises: Unavailable when waiting any longer would pass the caller's patience.
    """
    waited, failures = 0.0, 0
    while True:
        outcome = yield call
        asked = None
        why = "no call was made"
        if isinstance(outcome, Reply):
            if not protocol.is_temporary(outcome):
                return outcome
            asked, why = outcome.retry_after_seconds, f"the server answered {outcome.status}"
        elif outcome is not None:
            why = outcome.why
        pause = patience.pause(failures, asked)
        if waited + pause > patience.seconds_max:
            raise Unavailable(f"{why}; gave up on {call.path}", retry_after_seconds=asked)
        failures += 1
        waited += pause
        yield Pause(pause)


def _sent(events: Sequence[bytes], patience: Patience) -> Flow[list[Verdict]]:
    """Send events in one request. Raises: Rejected, Unauthorized, Unavailable."""
    reply = yield from answered(protocol.ingest(events), patience)
    found = protocol.verdicts(reply, len(events))
    if found is None:
        protocol.raise_for(reply)
        raise Unavailable("the server did not say what became of the events")
    return found


def count_many(items: Sequence[Item], patience: Patience) -> Flow[None]:
    """Send events now, as many requests as they need; all are tried.

    Raises: SomeRejected, Rejected, Unauthorized, Unavailable. After the last three some may be
    counted: repeating the call with the same ids is safe.
    """
    refusals: list[Refusal] = []
    place = 0
    for batch in protocol.batches([item.body for item in items]):
        for verdict in (yield from _sent(batch, patience)):
            if not verdict.counted:
                reason = verdict.reason or verdict.status
                refusals.append(Refusal(items[place].target, reason, verdict.detail))
            place += 1
    if refusals:
        raise SomeRejected(refusals)


def count(event: bytes, patience: Patience) -> Flow[None]:
    """Send one event now. Raises: Rejected, Unauthorized, Unavailable."""
    found = yield from _sent([event], patience)
    if not found[0].counted:
        status = 409 if found[0].status == "conflict" else 422
        raise Rejected(
            found[0].reason or found[0].status, found[0].detail,
            status=status, field=found[0].field,
        )  # fmt: skip


def reserve(
    customer: str, meter: str, quantity: Quantity, ask_id: str, patience: Patience
) -> Flow[Permit]:
    """Hold a quantity. Raises: Denied, Rejected, Unavailable.

    The question is repeated with its id until it is answered, so it holds once however often.
    """
    call = protocol.authorize(customer, meter, quantity, ask_id)
    reply = yield from answered(call, patience)
    return protocol.permit(reply, customer, meter, quantity)


def settle(kind: str, reservation: str, body: bytes, patience: Patience) -> Flow[None]:
    """Commit or release; repeating it is safe. Raises: Rejected, Unavailable."""
    reply = yield from answered(protocol.settle(kind, reservation, body), patience)
    protocol.raise_for(reply)


def quota(customer: str, meter: str, patience: Patience) -> Flow[Quota]:
    """Read a quota. Raises: Rejected, Unavailable."""
    return protocol.quota((yield from answered(protocol.ask_quota(customer, meter), patience)))


def usage(call: Call, patience: Patience) -> Flow[list[Usage]]:
    """Read usage, page by page when the server pages. Raises: Rejected, Unavailable."""
    found: list[Usage] = []
    asked = call
    while True:
        reply = yield from answered(asked, patience)
        found += protocol.usage(reply)
        following = reply.document.get("next")
        if not following:
            return found
        asked = replace(call, query=(*call.query, ("after", str(following))))
