"""Empty the spool in the background: daemon threads that start at the first use, in any process.

Idle threads wake when something is tracked. Threads in trouble do not: they wait their backoff,
which only `flush` and `stop` cut short, and nothing cuts short what the server asked for.
"""

import logging
import os
import threading
import time
from typing import Final

from convergio_client.errors import Closed, SpoolBroken
from convergio_client.flows import Patience
from convergio_client.lane import Lane, Rest, Send
from convergio_client.model import OnRejected
from convergio_client.spool import Spool

_POLL_SECONDS: Final = 0.02
_URGE_SECONDS: Final = 1.0
_ASKED_SECONDS_MAX: Final = 300.0
_SETTLERS: Final = 3
_log: Final = logging.getLogger("convergio_client")


class Delivery:
    """The threads that send what a spool holds."""

    def __init__(
        self, spool: Spool, send: Send, *, patience: Patience, on_rejected: OnRejected | None
    ) -> None:
        """`send` must be safe to call from several threads."""
        self.trouble: str | None = None
        self._spool = spool
        self._send = send
        self._patience = patience
        self._on_rejected = on_rejected
        self._process = 0
        self._threads: list[threading.Thread] = []
        self._bells: list[_Bell] = []
        self._stop = threading.Event()

    def wake(self) -> None:
        """Let idle threads look now; start them, also in a process that was forked."""
        if self._process != os.getpid():
            self._start()
        for bell in self._bells:
            bell.idle.set()

    def flush(self, seconds: float) -> bool:
        """Wait until all that is in the spool now is delivered or refused; False when it is not."""
        deadline = time.monotonic() + seconds
        upto = self._spool.last()
        urged = 0.0
        while self._spool.waits(upto):
            if time.monotonic() >= deadline:
                return False
            if time.monotonic() - urged > _URGE_SECONDS:
                urged = time.monotonic()
                self._urge()
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self, seconds: float) -> bool:
        """End the threads after the requests that they are in; say whether they ended in time."""
        self._stop.set()
        if self._process != os.getpid():
            return True
        self._urge()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _urge(self) -> None:
        self.wake()
        for bell in self._bells:
            bell.any.set()

    def _start(self) -> None:
        with self._spool.lock:  # it is never held across a fork by another thread
            if self._process == os.getpid() or self._stop.is_set():
                return
            lanes = [self._lane(events=True), *(self._lane(events=False) for _ in range(_SETTLERS))]
            self._stop = threading.Event()
            self._bells = [_Bell() for _ in lanes]
            self._threads = [
                threading.Thread(
                    target=self._run, args=(lane, bell), name="convergio-spool", daemon=True
                )
                for lane, bell in zip(lanes, self._bells, strict=True)
            ]
            for thread in self._threads:
                thread.start()
            self._process = os.getpid()

    def _lane(self, *, events: bool) -> Lane:
        return Lane(
            self._spool,
            self._send,
            events=events,
            patience=self._patience,
            on_rejected=self._on_rejected,
        )

    def _run(self, lane: Lane, bell: "_Bell") -> None:
        while not self._stop.is_set():
            try:
                rest = lane.step()
            except Closed:
                return
            except SpoolBroken as error:
                rest = lane.failed(str(error))
            if rest is None:
                self.trouble = None
            elif rest.trouble is None:
                bell.idle.wait(rest.seconds)
                bell.idle.clear()
            else:
                self._wait_out(rest, bell)

    def _wait_out(self, rest: Rest, bell: "_Bell") -> None:
        if self.trouble != rest.trouble:
            _log.warning("the spool is not delivered and tried again: %s", rest.trouble)
        self.trouble = rest.trouble
        self._stop.wait(min(rest.asked_seconds, _ASKED_SECONDS_MAX))
        bell.any.wait(rest.seconds)
        bell.any.clear()


class _Bell:
    """What wakes one thread: work when it is idle, or an urgent call at any time."""

    def __init__(self) -> None:
        self.idle = threading.Event()
        self.any = threading.Event()
