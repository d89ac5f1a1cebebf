"""One line of delivery: claim rows, send them, and let each row go only on a verdict.

An event leaves the spool when the server said what became of it. No answer, an answer that does
not read, an overload and a wrong key all leave it where it is. What the server refuses for good
goes to the rejected ones, and `on_rejected` is told. What makes the server fail (500) is found by
halving the batch and then left to its lease, so that it never stands in the way of the rest.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from convergio_client import protocol
from convergio_client.errors import Unauthorized, Unavailable
from convergio_client.flows import Patience
from convergio_client.model import OnRejected, Rejection
from convergio_client.protocol import Call, Reply, Silence
from convergio_client.spool import EVENT, SETTLEMENTS, Refusal, Row, Spool

Send = Callable[[Call], Reply | Silence]
IDLE_SECONDS: Final = 0.5
_SETTLEMENTS_MAX: Final = 16
_NOT_FOUND: Final = 404
_FAULT: Final = 500
_FAULTS_MAX: Final = 5
_SPLITTABLE: Final = frozenset({400, 413, 422})
_log: Final = logging.getLogger("convergio_client")


@dataclass(frozen=True, slots=True)
class Rest:
    """How long to wait before the next step: nothing to do, or trouble.

    `asked_seconds` is the server's own wish (Retry-After) and is not cut short by anything.
    """

    seconds: float
    trouble: str | None = None
    asked_seconds: float = 0.0


IDLE: Final = Rest(IDLE_SECONDS)


class Lane:
    """Delivers events, in batches, or settlements, one by one. Used by one thread."""

    def __init__(
        self,
        spool: Spool,
        send: Send,
        *,
        events: bool,
        patience: Patience,
        on_rejected: OnRejected | None,
    ) -> None:
        """`send` makes one request, blocking."""
        self._spool = spool
        self._send = send
        self._kinds = (EVENT,) if events else SETTLEMENTS
        self._deliver = self._count if events else self._settle
        self._rows_max = protocol.BATCH_ROWS_MAX if events else _SETTLEMENTS_MAX
        self._patience = patience
        self._on_rejected = on_rejected
        self._failures = 0

    def step(self) -> Rest | None:
        """Deliver what one claim brings; None means that there may be more at once.

        Raises: SpoolBroken, Closed.
        """
        rows = self._spool.claim(
            self._kinds, rows_max=self._rows_max, size_max=protocol.BATCH_SIZE_MAX
        )
        if not rows:
            return IDLE
        rest = self._deliver(rows)
        if rest is None:
            self._failures = 0
        return rest

    def failed(self, why: str, asked: float | None = None) -> Rest:
        """Return the pause after one more failure."""
        pause = self._patience.pause(self._failures, None)
        self._failures += 1
        return Rest(pause, why, asked or 0.0)

    def _count(self, rows: list[Row]) -> Rest | None:
        outcome = self._send(protocol.ingest([row.body for row in rows]))
        if isinstance(outcome, Silence):
            return self._again(rows, outcome.why)
        if protocol.is_temporary(outcome):
            why = f"the server answered {outcome.status}"
            if self._gives_up(outcome) and len(rows) == 1:
                return self.failed(why)
            if outcome.status == _FAULT:
                self._rows_max = max(1, len(rows) // 2)
            return self._again(rows, why, outcome.retry_after_seconds)
        try:
            verdicts = protocol.verdicts(outcome, len(rows))
        except Unavailable as error:
            return self._again(rows, str(error))
        if verdicts is None:
            return self._refused(rows, outcome)
        pairs = list(zip(rows, verdicts, strict=True))
        refused = [
            Refusal(row, verdict.reason or verdict.status, verdict.detail)
            for row, verdict in pairs
            if not verdict.counted
        ]
        self._tell(self._spool.settle([row for row, verdict in pairs if verdict.counted], refused))
        self._rows_max = min(protocol.BATCH_ROWS_MAX, self._rows_max * 2)
        return None

    def _refused(self, rows: list[Row], reply: Reply) -> Rest | None:
        """Find the event at fault when a whole request was refused, or wait for the mend."""
        error = protocol.failure(reply)
        if error is None or reply.status not in _SPLITTABLE:
            why = str(error or f"an answer {reply.status} that says nothing of the events")
            return self._again(rows, why)
        if len(rows) > 1:
            self._rows_max = max(1, len(rows) // 2)
            self._spool.give_back(rows)
            return None
        code = str(reply.document.get("code") or f"http_{reply.status}")
        self._tell(self._spool.settle([], [Refusal(rows[0], code, str(error))]))
        return None

    def _settle(self, rows: list[Row]) -> Rest | None:
        faults = 0
        for place, row in enumerate(rows):
            outcome = self._send(protocol.settle(row.kind, row.target, row.body))
            if isinstance(outcome, Silence):
                return self._again(rows[place:], outcome.why)
            error = protocol.failure(outcome)
            if error is None:
                self._spool.settle([row])
            elif self._gives_up(outcome):
                faults += 1  # it stays claimed until its lease ends; the others go on
            elif protocol.is_temporary(outcome) or _is_stuck(outcome):
                return self._again(rows[place:], str(error), outcome.retry_after_seconds)
            else:
                code = str(outcome.document.get("code") or f"http_{outcome.status}")
                self._tell(self._spool.settle([], [Refusal(row, code, str(error))]))
        return self.failed("the server answered 500") if faults == len(rows) else None

    def _gives_up(self, reply: Reply) -> bool:
        """Say whether the server failed so often at one thing that the others go first."""
        return reply.status == _FAULT and self._failures >= _FAULTS_MAX

    def _again(self, rows: Sequence[Row], why: str, asked: float | None = None) -> Rest:
        self._spool.give_back(rows)
        return self.failed(why, asked)

    def _tell(self, rejections: Sequence[Rejection]) -> None:
        for one in rejections:
            _log.error("%s %s was refused: %s", one.kind, one.target, one.reason)
            if self._on_rejected is not None:
                try:
                    self._on_rejected(one)
                except Exception:  # noqa: BLE001 - the callback is its owner's; delivery goes on
                    _log.exception("on_rejected failed")


def _is_stuck(reply: Reply) -> bool:
    """Say whether the key or the address is wrong, and not the settlement."""
    code = str(reply.document.get("code") or "")
    not_ours = reply.status == _NOT_FOUND and not code.startswith("unknown_")
    return not_ours or isinstance(protocol.failure(reply), Unauthorized)
