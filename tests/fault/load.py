"""Clients that send over HTTP while things die, each with a journal of what it was promised.

A client repeats a request that was not answered, or answered with 503, with the SAME ids; now and
then it gives up instead, as real callers do. What it was told is what the test holds us to.
"""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from http.client import HTTPConnection, HTTPException
from random import Random
from typing import Any

from tests.fault.stage import real_now

LAST_TRY_SECONDS_MAX = 90.0
BATCH_SIZES = (1, 1, 1, 5, 50)
PAUSE_SECONDS_MAX = 0.02
GIVES_UP = 0.04
SENDS_AGAIN = 0.05


@dataclass
class Journal:
    """What a client sent, and what it was told."""

    sent: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    open: dict[str, Decimal] = field(default_factory=dict)
    committed: dict[str, Decimal] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    figures: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Journal") -> None:
        """Take in what another client wrote down."""
        self.sent |= other.sent
        self.acknowledged |= other.acknowledged
        self.open |= other.open
        self.committed |= other.committed
        self.released |= other.released
        self.doubtful |= other.doubtful
        self.figures += other.figures
        self.problems += other.problems


class Client(threading.Thread, ABC):
    """One caller with one connection."""

    def __init__(self, port: int, key: str, seed: str, stop: threading.Event) -> None:
        super().__init__(name=seed, daemon=True)
        self.journal = Journal()
        self.chance = Random(seed)
        self.ending = stop
        self.turn = threading.Lock()  # held while it works: whoever has it has a client at rest
        self._port = port
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection: HTTPConnection | None = None
        self._counter = 0

    def run(self) -> None:
        """Work until told to stop, then see the last request through."""
        try:
            while not self.ending.is_set():
                with self.turn:
                    self.work()
                time.sleep(self.chance.uniform(0.001, PAUSE_SECONDS_MAX))
        except Exception as error:  # noqa: BLE001 - the test reports what broke its client
            self.journal.problems.append(f"{self.name}: {type(error).__name__} {error}")
        finally:
            self._hang_up()

    @abstractmethod
    def work(self) -> None:
        """Do one piece of work."""

    def ask(self, path: str, body: object, *, may_give_up: bool) -> tuple[int, Any] | None:
        """Send a request until it is answered; None when the client gave up."""
        data = json.dumps(body).encode()
        deadline = None
        while True:
            answer = self._once(path, data)
            if answer is not None and answer[0] != 503:
                self.journal.figures["answered"] += 1
                return answer
            self.journal.figures["refused with 503" if answer else "unanswered"] += 1
            if may_give_up and self.chance.random() < GIVES_UP:
                self.journal.figures["given up"] += 1
                return None
            if self.ending.is_set():
                deadline = deadline or time.monotonic() + LAST_TRY_SECONDS_MAX
                assert time.monotonic() < deadline, f"no answer at all from {path}: {answer}"
            time.sleep(self.chance.uniform(0.01, 0.08))
            self.journal.figures["retries"] += 1

    def _once(self, path: str, data: bytes) -> tuple[int, Any] | None:
        try:
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._connection.request("POST", path, data, self._headers)
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, HTTPException, ValueError):
            self._hang_up()
            return None

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Sender(Client):
    """Sends single events and batches, and sends some of them once more after the answer."""

    customers: Sequence[str] = ()

    def work(self) -> None:
        """Send one request; when it is acknowledged, write it down."""
        size = self.chance.choice(BATCH_SIZES)
        events = [self._event() for _ in range(size)]
        for event in events:
            quantity = Decimal(event["data"].get("quantity", "1"))
            self.journal.sent[event["subject"], event["id"]] = quantity
        if self._deliver(events, known=False) and self.chance.random() < SENDS_AGAIN:
            self._deliver(events, known=True)

    def _deliver(self, events: list[dict[str, Any]], *, known: bool) -> bool:
        body = events[0] if len(events) == 1 else events
        answer = self.ask("/v1/events", body, may_give_up=True)
        if answer is None:
            return False
        status, told = answer
        new, old = told.get("accepted", 0), told.get("duplicate", 0)
        if status != 202 or new + old != len(events):
            self.journal.problems.append(f"{len(events)} events were answered {answer}")
            return False
        if known and new:
            self.journal.problems.append(f"{new} acknowledged events were new when sent again")
        self.journal.figures["sent again on purpose" if known else "acknowledged"] += len(events)
        self.journal.figures["duplicates of retries"] += 0 if known else old
        self.journal.acknowledged |= {(event["subject"], event["id"]) for event in events}
        return True

    def _event(self) -> dict[str, Any]:
        self._counter += 1
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"{self.name}-{self._counter}",
            "source": "fault",
            "type": "ai.request",
            "subject": self.chance.choice(self.customers),
            "data": {"status": "succeeded"},
        }
        if self.chance.random() < 0.5:
            event["data"]["quantity"] = self.chance.choice(["1", "2", "0.25", "3.000000001"])
        if self.chance.random() < 0.5:
            back = timedelta(seconds=self.chance.uniform(0, 30 * 86_400))
            event["time"] = (real_now() - back).isoformat()
        return event


class Asker(Client):
    """Reserves of a hard limit that all askers share, then commits, releases or forgets."""

    current: Callable[[int], str] = str
    _denials = 0

    def work(self) -> None:
        """Ask once and settle what was allowed."""
        quantity = Decimal(self.chance.choice(["1", "2", "0.5"]))
        customer = type(self).current(self._denials)
        body = {"customer": customer, "meter": "questions", "quantity": str(quantity)}
        self._counter += 1
        body["id"] = f"{self.name}-{self._counter}"
        answer = self.ask("/v1/authorize", body, may_give_up=True)
        if answer is None:
            self.journal.figures["asks given up"] += 1
            return
        status, told = answer
        if status == 429 and told["reason"] == "limit_reached":
            self.journal.figures["denied"] += 1
            self._denials += 1
            return
        self._denials = 0
        if status != 200:
            self.journal.problems.append(f"authorize was answered {answer}")
            return
        self.journal.figures["allowed"] += 1
        self._settle(customer, told["reservation"], quantity)

    def _settle(self, customer: str, reservation: str, quantity: Decimal) -> None:
        what = self.chance.choice(["commit", "commit", "release", "forget"])
        if what == "forget":
            self.journal.open[reservation] = quantity
            return
        body = {"customer": customer}
        answer = self.ask(f"/v1/reservations/{reservation}/{what}", body, may_give_up=True)
        if answer is None:
            self.journal.doubtful.add(reservation)
        elif answer[0] != 200:
            self.journal.problems.append(f"{what} of {reservation} was answered {answer}")
        elif what == "commit":
            self.journal.committed[reservation] = quantity
        else:
            self.journal.released.add(reservation)
