"""Decide in this process: a slice of a quota, taken in microseconds, renewed in the background.

`Slice` is the decision and nothing else: no I/O, safe for threads. `Lease` keeps one filled: a
thread reports what was used, asks for more before the slice is empty or ends, and gives the rest
back on `close`. The server holds what a slice may still allow, so that any number of processes
never allow more than the quota; a process that dies leaves its rest blocked, never oversold.

    with Lease(send, "acme", "questions") as lease:
        if lease.take():
            answer(question)
            lease.done()
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self

from convergio_client import protocol
from convergio_client.errors import ClientError, Denied
from convergio_client.protocol import Call, Reply, Silence

Send = Callable[[Call], Reply | Silence]
Clock = Callable[[], float]
WANTED: Final = 100
CLOSE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 1.0
_LIFE_LEFT: Final = 0.5  # of its life: renew when so much is left
_SLICE_LEFT: Final = 4  # a slice with less than a fourth of what is wanted asks for more
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_OK: Final = 200
_MULTIPLE: Final = 300
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_log: Final = logging.getLogger("convergio_client")


class Slice:
    """What one lease lets this process decide alone, until a moment of its own clock.

    `take` asks, `done` says that the work succeeded and counts, `give_back` that it did not and
    counts nothing. Only what is done is reported, so a failure never has to be taken back.
    """

    __slots__ = ("_clock", "_done", "_granted", "_lock", "_taken", "_until")

    def __init__(
        self, granted: Decimal | int = 0, *, until: float = 0.0, clock: Clock = time.monotonic
    ) -> None:
        """Start with so much, until a reading of the clock."""
        self._granted: Decimal | int = granted
        self._until = until
        self._clock = clock
        self._taken: Decimal | int = 0
        self._done: Decimal | int = 0
        self._lock = threading.Lock()

    def take(self, quantity: Decimal | int = 1) -> bool:
        """Say whether so much may be used now, and take it if so."""
        with self._lock:
            taken = self._taken + quantity
            if taken > self._granted or self._clock() >= self._until:
                return False
            self._taken = taken
            return True

    def done(self, quantity: Decimal | int = 1) -> None:
        """Count what was taken: the work is done."""
        with self._lock:
            self._done += quantity

    def give_back(self, quantity: Decimal | int = 1) -> None:
        """Take back what was taken: the work failed."""
        with self._lock:
            self._taken -= quantity

    def refill(self, granted: Decimal | int, until: float) -> None:
        """Let the slice be as large, in all since it began, until a reading of the clock."""
        with self._lock:
            self._granted = granted
            self._until = until

    def restart(self, reported: Decimal | int) -> None:
        """Begin a new lease: what was reported stays with the old one, the rest comes along."""
        with self._lock:
            self._taken -= reported
            self._done -= reported
            self._granted, self._until = 0, float("-inf")

    def close(self) -> Decimal | int:
        """Take nothing more, and return what was used; work that still runs counts as used."""
        with self._lock:
            self._until = float("-inf")
            self._done = self._taken
            return self._taken

    @property
    def used(self) -> Decimal | int:
        """What is done, to be reported."""
        with self._lock:
            return self._done

    @property
    def left(self) -> Decimal | int:
        """What may still be taken while the slice lives."""
        with self._lock:
            return max(self._granted - self._taken, 0)


class Lease:
    """Keeps a slice of one customer's quota filled. One for a process; threads share it."""

    def __init__(
        self,
        send: Send,
        customer: str,
        meter: str,
        *,
        wanted: int = WANTED,
        clock: Clock = time.monotonic,
    ) -> None:
        """`send` makes one request; `wanted` is what this process likes to have in hand."""
        self._send = send
        self._customer = customer
        self._meter = meter
        self._wanted = wanted
        self._clock = clock
        self._slice = Slice(clock=clock)
        self._id = _new_id()
        self._asked = self._open = False
        self._sequence = 0
        self._report: Decimal | int | None = None
        self._counted: Decimal | int = 0
        self._renew_at = clock()
        self._low = threading.Event()
        self._closing = threading.Event()
        self.denied: Denied | None = None
        self._step()
        self._thread = threading.Thread(target=self._run, name="convergio-lease", daemon=True)
        self._thread.start()

    def take(self, quantity: Decimal | int = 1) -> bool:
        """Say whether so much may be used now, and take it if so; never waits for the server.

        False may mean "not yet": the answer of `denied` says what the server said last.
        """
        fits = self._slice.take(quantity)
        if not fits or self._slice.left * _SLICE_LEFT < self._wanted:
            self._low.set()
        return fits

    def done(self, quantity: Decimal | int = 1) -> None:
        """Count what was taken: the work is done."""
        self._slice.done(quantity)

    def give_back(self, quantity: Decimal | int = 1) -> None:
        """Take back what was taken: the work failed."""
        self._slice.give_back(quantity)

    def close(self) -> bool:
        """Report everything and give the rest back; False when the server did not answer in time.

        The rest then stays blocked until somebody settles the lease or its window ends.
        """
        self._closing.set()
        self._low.set()
        self._thread.join()
        used = self._slice.close()
        if not self._asked:
            return True
        body = {"customer": self._customer, "used": protocol.quantity_text(used)}
        deadline = self._clock() + CLOSE_SECONDS
        while True:
            reply = self._ask(f"/v1/leases/{self._id}/settle", body)
            if reply is not None:
                return _OK <= reply.status < _MULTIPLE or reply.status == _NOT_FOUND
            if self._clock() >= deadline:
                _log.warning("the lease %s is not settled; its rest stays blocked", self._id)
                return False
            time.sleep(_PAUSE_SECONDS / 4)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        """Renew when the slice runs low or old; after a failure or a denial, not at once."""
        earliest = self._clock()
        while not self._closing.is_set():
            self._low.wait(max(0.0, self._renew_at - self._clock()))
            pause = earliest - self._clock()
            if self._closing.wait(max(0.0, pause)):
                return
            self._low.clear()
            before = self._slice.left
            if not self._step() or self._slice.left <= before:
                earliest = self._clock() + _PAUSE_SECONDS

    def _step(self) -> bool:
        """Make one request: a new lease, or a report on the one there is; say if it was answered.

        A request that was not answered is made again as it was, so it counts once.
        """
        asked_at = self._clock()
        body: dict[str, object] = {"customer": self._customer, "wanted": str(self._wanted)}
        if not self._open:
            path = "/v1/leases"
            body |= {"meter": self._meter, "lease": self._id}
            self._asked = True
        else:
            path = f"/v1/leases/{self._id}/renew"
            if self._report is None:  # one that was not answered is repeated as it was
                self._report = self._slice.used
            body |= {
                "used": protocol.quantity_text(self._report),
                "sequence": self._sequence + 1,
            }
        reply = self._ask(path, body)
        if reply is not None and _OK <= reply.status < _MULTIPLE:
            self.denied = None
            self._learn(reply.document, asked_at)
            return True
        self._renew_at = self._clock() + _PAUSE_SECONDS
        if reply is not None:
            self._refused(path, reply)
        return False

    def _learn(self, found: dict[str, Any], asked_at: float) -> None:
        """Take in an answer: the slice's life is counted from before the request was made."""
        if found["state"] != "open":  # its window ended, or it was given up as lost
            self._start_again(Decimal(found["used"]))
            return
        self._report = None
        self._open = True
        self._sequence, self._counted = int(found["sequence"]), Decimal(found["used"])
        life = int(found["expires_in_ms"]) / 1000
        self._slice.refill(Decimal(found["granted"]), asked_at + life)
        self._renew_at = asked_at + life * _LIFE_LEFT

    def _refused(self, path: str, reply: Reply) -> None:
        """Remember a denial; leave a lease that the server will not hear of any more."""
        if reply.document.get("allowed") is False:
            self.denied = protocol.denied(reply)
            self._asked = False
            return
        _log.warning("%s was answered %s", path, reply.status)
        if self._open and reply.status in {_NOT_FOUND, _CONFLICT}:
            self._start_again(self._counted)

    def _start_again(self, reported: Decimal | int) -> None:
        """Begin another lease; what is not reported yet comes along."""
        self._slice.restart(reported)
        self._id, self._open, self._asked = _new_id(), False, False
        self._sequence, self._report, self._counted = 0, None, 0
        self._renew_at = self._clock()

    def _ask(self, path: str, body: Mapping[str, object]) -> Reply | None:
        """Return the answer; None when there was none, or none for good."""
        try:
            reply = self._send(Call("POST", path, json.dumps(body).encode()))
        except ClientError as error:
            _log.warning("%s was not answered: %s", path, error)
            return None
        if isinstance(reply, Silence) or protocol.is_temporary(reply):
            return None
        return reply


def _new_id() -> str:
    """Return an id of a lease, chosen here so that asking again is the same lease."""
    number = secrets.randbits(128)
    return "lea_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))
