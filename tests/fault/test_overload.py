"""A server that gets far more than it can take turns away with 503, and keeps its memory.

Postgres is stopped (SIGSTOP) for some seconds while hundreds of connections send: nothing can be
committed, and the queue is full at once. Then it goes on, and so must the server.
"""

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from convergio.kernel.errors import require
from tests.fault.flood import Flood
from tests.fault.stage import Stage, built, children, real_now
from tests.fault.storm import prepare

CONNECTIONS = 240
QUEUE_MAX = 2_000
BATCH = 50
PADDING = 1_000
STOPPED_SECONDS = 5.0
GROWTH_MAX = 96 * 1024 * 1024
BEAT_SECONDS = 0.05


@dataclass
class Left:
    """What the flood saw, and how large the server was meanwhile."""

    flood: Flood
    before: int = 0
    highest: int = 0
    turned_away: int = 0
    offered: int = 0
    after: int = 0
    longest_wait: float = 0.0
    stored: Counter[str] = field(default_factory=Counter)
    verified: dict[str, object] = field(default_factory=dict)


@pytest.fixture(scope="module")
def left(seed: int, figures: list[str]) -> Left:
    """Flood once; every test judges the same one."""
    with built() as stage:
        key = prepare(stage, real_now())
        stage.settings = {"CONVERGIO_INGEST_QUEUE_MAX": str(QUEUE_MAX)}
        stage.serve(1)
        found = Left(Flood(stage.port, key, f"flood-{seed}", BATCH, PADDING))
        asyncio.run(_flooded(stage, found))
        stage.stop_server()
        with stage.connected() as connection:
            found.stored = Counter(
                name
                for (name,) in connection.execute(
                    "SELECT event_id FROM usage_event WHERE source = 'flood'"
                )
            )
        found.verified = stage.command("verify")
    figures.append(
        f"overload: {CONNECTIONS} connections, Postgres stopped for {STOPPED_SECONDS:g} s: "
        f"{found.turned_away:,} turned away meanwhile (slowest answer "
        f"{found.longest_wait * 1000:,.0f} ms), {found.offered / 2**20:,.0f} MiB offered, "
        f"memory {found.before / 2**20:,.0f} MiB before, {found.highest / 2**20:,.0f} MiB at most; "
        f"{len(found.flood.acknowledged):,} acknowledged, {found.after:,} of them after it"
    )
    return found


async def _flooded(stage: Stage, found: Left) -> None:
    """Flood; stop the database for a while; let it go on."""
    flood = found.flood
    sending = asyncio.ensure_future(flood.run(CONNECTIONS))
    await _watched(stage, found, 3.0)
    found.before, found.highest = found.highest, 0
    turned, offered, waits = flood.statuses[503], flood.sent_bytes, len(flood.waits)
    family = [stage.postmaster, *children(stage.postmaster)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        await _watched(stage, found, STOPPED_SECONDS)
    finally:
        for pid in reversed(family):
            os.kill(pid, signal.SIGCONT)
    found.turned_away = flood.statuses[503] - turned
    found.offered = flood.sent_bytes - offered
    found.longest_wait = max(flood.waits[waits:], default=0.0)
    acknowledged = len(flood.acknowledged)
    await _watched(stage, found, 3.0)
    found.after = len(flood.acknowledged) - acknowledged
    flood.ending = True
    await asyncio.wait_for(sending, 60)


async def _watched(stage: Stage, found: Left, seconds: float) -> None:
    """Let time go by, and note how large the server's process gets."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    require(stage.server is not None, "the server runs")
    while loop.time() < end:
        if stage.server is not None:
            found.highest = max(found.highest, _resident(stage.server.pid))
        await asyncio.sleep(BEAT_SECONDS)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_what_cannot_be_taken_is_turned_away_at_once_and_told_when_to_return(left: Left) -> None:
    assert left.turned_away > 10 * CONNECTIONS
    assert left.flood.told_when == left.flood.statuses[503]
    assert left.longest_wait < 2.0
    assert left.flood.statuses.keys() == {202, 503}


def test_memory_is_bounded_by_the_queue_and_not_by_what_is_offered(left: Left) -> None:
    assert left.offered > 2 * GROWTH_MAX, "too little was offered to see a queue without end"
    assert left.highest - left.before < GROWTH_MAX


def test_it_goes_on_as_soon_as_the_database_does(left: Left) -> None:
    assert left.after > 2 * QUEUE_MAX


def test_nothing_that_was_acknowledged_is_lost_or_doubled(left: Left) -> None:
    assert {name: left.stored[name] for name in left.flood.acknowledged} == dict.fromkeys(
        left.flood.acknowledged, 1
    )
    assert set(left.stored.values()) == {1}
    assert left.verified["ok"] is True
