"""A durable queue in one SQLite file: what is in it survives the process, until it is delivered.

Which crash it survives is chosen: `durability="process"` (the default; WAL, synchronous=NORMAL)
survives the death of every process, kill -9 included, because the operating system has the pages;
a power loss may cost the last moments. `durability="power"` (synchronous=FULL) waits for the disk
at every `add` and survives a power loss as well.

Several processes may share a file: a row is claimed for a lease, and a claim whose owner died is
free again when its lease ends. Delivering a row twice is harmless, the server counts an id once.

Invariants: a row leaves only by `settle` (delivered, or moved to the rejected ones with a reason);
the load is kept by triggers, so that the limits hold across processes; no connection crosses a
fork (SQLite forbids it): it is closed before and opened again at the next use.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from convergio_client import clock
from convergio_client.errors import Closed, Invalid, SpoolBroken, SpoolFull
from convergio_client.model import Rejection

EVENT: Final = "event"
SETTLEMENTS: Final = ("commit", "release")
_VERSION: Final = 1
_BUSY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_SYNCHRONOUS: Final = {"process": "NORMAL", "power": "FULL"}
_SCHEMA: Final = """
CREATE TABLE queue (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('event', 'commit', 'release')),
    target TEXT NOT NULL,
    body BLOB NOT NULL,
    claim TEXT NOT NULL DEFAULT '',
    claimed_until REAL NOT NULL DEFAULT 0
);
CREATE TABLE rejected (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    body BLOB NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE load (
    waiting INTEGER NOT NULL, waiting_size INTEGER NOT NULL,
    rejected INTEGER NOT NULL, rejected_size INTEGER NOT NULL
);
INSERT INTO load VALUES (0, 0, 0, 0);
CREATE TRIGGER queue_in AFTER INSERT ON queue BEGIN
    UPDATE load SET waiting = waiting + 1, waiting_size = waiting_size + length(new.body);
END;
CREATE TRIGGER queue_out AFTER DELETE ON queue BEGIN
    UPDATE load SET waiting = waiting - 1, waiting_size = waiting_size - length(old.body);
END;
CREATE TRIGGER rejected_in AFTER INSERT ON rejected BEGIN
    UPDATE load SET rejected = rejected + 1, rejected_size = rejected_size + length(new.body);
END;
CREATE TRIGGER rejected_out AFTER DELETE ON rejected BEGIN
    UPDATE load SET rejected = rejected - 1, rejected_size = rejected_size - length(old.body);
END;
"""


@dataclass(frozen=True, slots=True)
class Item:
    """Something to deliver: an event, or a reservation to settle."""

    kind: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A claimed item and its place in the queue."""

    position: int
    kind: str
    target: str
    body: bytes
    claim: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row will never be delivered."""

    row: Row
    reason: str
    detail: str


class Spool:
    """One file. Safe to use from several threads, and the file from several processes."""

    def __init__(
        self,
        path: str | Path,
        *,
        durability: Literal["process", "power"] = "process",
        rows_max: int = 1_000_000,
        size_max: int = 1024 * 1024 * 1024,
        wait_seconds: float = 0.0,
        lease_seconds: float = 30.0,
    ) -> None:
        """Name the file; it is made at the first use, readable by its owner only.

        A full spool (`rows_max` waiting, or `size_max` bytes waiting and rejected) makes `add`
        wait up to `wait_seconds` for room, then raise SpoolFull.
        """
        if durability not in _SYNCHRONOUS:
            raise Invalid("durability is 'process' or 'power'")
        if rows_max < 1 or size_max < 1 or wait_seconds < 0 or lease_seconds <= 0:
            raise Invalid("the limits and times of a spool are positive")
        self.path = Path(path)
        self.lease_seconds = lease_seconds
        self.lock = threading.RLock()
        self._durability = durability
        self._rows_max = rows_max
        self._size_max = size_max
        self._wait_seconds = wait_seconds
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        _OPEN.add(self)

    def add(self, items: Sequence[Item]) -> None:
        """Store items, all or none; when this returns, they are durable.

        Raises: SpoolFull, SpoolBroken, Closed.
        """
        deadline = time.monotonic() + self._wait_seconds
        while not self._added(items):
            if time.monotonic() >= deadline:
                raise SpoolFull(f"{self.path} is full; is the server reachable, is the key right?")
            time.sleep(_POLL_SECONDS)

    def _added(self, items: Sequence[Item]) -> bool:
        size = sum(len(item.body) for item in items)
        with self.transaction() as run:
            waiting, load = run.execute(
                "SELECT waiting, waiting_size + rejected_size FROM load"
            ).fetchone()
            if waiting + len(items) > self._rows_max or load + size > self._size_max:
                return False
            run.executemany(
                "INSERT INTO queue (kind, target, body) VALUES (?, ?, ?)",
                [(item.kind, item.target, item.body) for item in items],
            )
        return True

    def claim(self, kinds: Sequence[str], *, rows_max: int, size_max: int) -> list[Row]:
        """Take the oldest rows that nobody has, for a lease; at least one when there are any."""
        now = clock.now()
        until = (now + timedelta(seconds=self.lease_seconds)).timestamp()
        claim = clock.new_id(now).hex
        found: list[Row] = []
        size = 0
        places = ", ".join("?" for _ in kinds)
        with self.transaction() as run:
            due = run.execute(
                "SELECT position, kind, target, body FROM queue"  # noqa: S608 - only ? are put in
                f" WHERE claimed_until <= ? AND kind IN ({places}) ORDER BY position LIMIT ?",
                (now.timestamp(), *kinds, rows_max),
            )
            for row in due:
                position, kind, target, body = row
                size += len(body)
                if found and size > size_max:
                    break
                found.append(Row(position, kind, target, body, claim))
            due.close()
            run.executemany(
                "UPDATE queue SET claim = ?, claimed_until = ? WHERE position = ?",
                [(claim, until, row.position) for row in found],
            )
        return found

    def settle(self, done: Sequence[Row], refused: Sequence[Refusal] = ()) -> list[Rejection]:
        """Forget what was delivered and set aside what was refused; return the rejections.

        A row whose lease ended and that another process claimed stays with that one.
        """
        moved = []
        at = clock.now()
        with self.transaction() as run:
            for refusal in refused:
                row = refusal.row
                gone = run.execute(
                    "DELETE FROM queue WHERE position = ? AND claim = ?", (row.position, row.claim)
                )
                if gone.rowcount:
                    moved.append(
                        Rejection(
                            row.position, row.kind, row.target, row.body,
                            refusal.reason, refusal.detail, at,
                        )
                    )  # fmt: skip
            run.executemany(
                "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (one.position, one.kind, one.target, one.body,
                     one.reason, one.detail, clock.text(one.at))
                    for one in moved
                ],
            )  # fmt: skip
            run.executemany(
                "DELETE FROM queue WHERE position = ? AND claim = ?",
                [(row.position, row.claim) for row in done],
            )
        return moved

    def give_back(self, rows: Sequence[Row]) -> None:
        """End the lease of rows that were not delivered, so that anyone may try them at once."""
        with self.transaction() as run:
            run.executemany(
                "UPDATE queue SET claim = '', claimed_until = 0 WHERE position = ? AND claim = ?",
                [(row.position, row.claim) for row in rows],
            )

    def last(self) -> int:
        """Return the place of the newest item ever added."""
        with self.transaction() as run:
            found = run.execute("SELECT seq FROM sqlite_sequence WHERE name = 'queue'").fetchone()
        return int(found[0]) if found else 0

    def waits(self, upto: int) -> bool:
        """Say whether anything up to a place in the queue is not yet delivered."""
        with self.transaction() as run:
            asked = "SELECT EXISTS (SELECT 1 FROM queue WHERE position <= ?)"
            return bool(run.execute(asked, (upto,)).fetchone()[0])

    def load(self) -> tuple[int, int, int]:
        """Return how many rows wait, the bytes of all rows, and how many were rejected."""
        with self.transaction() as run:
            asked = "SELECT waiting, waiting_size + rejected_size, rejected FROM load"
            waiting, size, rejected = run.execute(asked).fetchone()
        return int(waiting), int(size), int(rejected)

    def rejected(self) -> Iterator[Rejection]:
        """Yield what was refused for good, oldest first, reading a page at a time."""
        last = -1
        while True:
            with self.transaction() as run:
                page = run.execute(
                    "SELECT position, kind, target, body, reason, detail, at FROM rejected"
                    " WHERE position > ? ORDER BY position LIMIT 500",
                    (last,),
                ).fetchall()
            if not page:
                return
            for row in page:
                position, kind, target, body, reason, detail, at = row
                instant = datetime.fromisoformat(at)
                yield Rejection(position, kind, target, body, reason, detail, instant)
            last = page[-1][0]

    def forget(self, rejections: Sequence[Rejection]) -> None:
        """Delete rejections that were dealt with."""
        with self.transaction() as run:
            run.executemany(
                "DELETE FROM rejected WHERE position = ?", [(one.position,) for one in rejections]
            )

    def resend(self, rejections: Sequence[Rejection]) -> None:
        """Put rejections back into the queue, with their ids: the cause was mended."""
        with self.transaction() as run:
            for one in rejections:
                gone = run.execute("DELETE FROM rejected WHERE position = ?", (one.position,))
                if gone.rowcount:
                    run.execute(
                        "INSERT INTO queue (kind, target, body) VALUES (?, ?, ?)",
                        (one.kind, one.target, one.body),
                    )

    def close(self) -> None:
        """Close the file; what is in it stays."""
        with self.lock:
            self._closed = True
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements as one write transaction. Raises: SpoolBroken, Closed."""
        with self.lock:
            if self._closed:
                raise Closed("the spool was closed")
            try:
                if self._connection is None:
                    self._connection = self._connected()
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                detail = f"{self.path}: {error}; free its disk, or move the file away and look"
                raise SpoolBroken(detail) from error

    def _connected(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        opened = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _until_free(opened, "PRAGMA journal_mode = WAL")
            opened.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[self._durability]}")
            _prepare(opened)
        except BaseException:
            opened.close()
            raise
        return opened


def _prepare(opened: sqlite3.Connection) -> None:
    """Make the tables once, whoever comes first."""
    opened.execute("BEGIN IMMEDIATE")
    version = opened.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, _VERSION}:
        opened.execute("ROLLBACK")
        raise sqlite3.DatabaseError(f"made by another version of this client ({version})")
    if version == 0:
        for statement in _statements():
            opened.execute(statement)
        opened.execute(f"PRAGMA user_version = {_VERSION}")
    opened.execute("COMMIT")


def _statements() -> Iterator[str]:
    text = ""
    for line in _SCHEMA.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def _until_free(opened: sqlite3.Connection, statement: str) -> None:
    """Run a statement for which SQLite does not wait by itself when another process is in it."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            opened.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


_OPEN: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()
_held: Final[list[Spool]] = []


def _before_fork() -> None:
    for spool in list(_OPEN):
        spool.lock.acquire()
        spool.disconnect()
        _held.append(spool)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
