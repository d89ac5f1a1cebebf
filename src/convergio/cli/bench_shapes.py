"""The measurements behind each curve: how throughput and delay change as one thing grows.

Each curve has a database of its own, so that none inherits what another left behind. A function
here takes the open product and the sizes, and returns what was measured, not yet dated.
"""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, repeat
from typing import Final

from convergio.cli import bench_stage, console
from convergio.cli.bench_http import Server
from convergio.kernel.errors import require
from convergio.kernel.periods import Calendar, Interval
from convergio.simulation import bench_events, bench_work
from convergio.simulation.bench_curves import Curve, Fact, near
from convergio.simulation.bench_figures import middle, number
from convergio.simulation.bench_svg import Line, Panel
from convergio.wiring import App

Row = tuple[float | None, ...]
CONNECTIONS: Final = 32  # so many requests of 1,000 events fit into one queue
NAIVE_CUSTOMERS: Final = 20
_MOST: Final = {1: 15_000, 10: 60_000, 50: 90_000, 200: 120_000, 1_000: 120_000}  # events/s


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each work; `quick` is only there to see that everything draws."""

    seconds: float
    repetitions: int
    chunk: int
    histories: tuple[int, ...]
    naive: tuple[int, ...]
    naive_checks: int
    subscriptions: tuple[int, ...]


FULL: Final = Scale(
    2.0, 3, 250_000, (0, 1_000_000, 3_000_000, 10_000_000), (10, 100, 1_000, 10_000), 400,
    (10_000, 100_000, 1_000_000),
)  # fmt: skip
QUICK: Final = Scale(
    1.0, 1, 10_000, (0, 20_000, 60_000, 100_000), (10, 100, 1_000), 100, (1_000, 3_000)
)


def batch(app: App, scale: Scale) -> Curve:
    """Throughput and delay against the number of events a request."""
    _subscribed(app)
    rows: list[Row] = []
    with bench_stage.served(app) as server:
        for size, most in _MOST.items():
            rates, full, half = _loaded(server, scale, connections=CONNECTIONS, size=size, top=most)
            rows.append((size, rates * size, rates, full, half))
            _tell(f"{size} events a request", rows[-1])
    return Curve(
        key="batch",
        title=f"Ingest over HTTP against batch size, {CONNECTIONS} connections",
        words=(
            "More events a request share parsing, the transaction and the commit. The delay is that"
            " of a whole request at half of its largest rate."
        ),
        panels=_pair("events a request", rows, throughput="events/s"),
        columns=("events a request", "events/s", "requests/s", "p99 ms, full load", "p99 ms, half"),
        rows=tuple(rows),
    )


def connections(app: App, scale: Scale) -> Curve:
    """Throughput and delay of single events against the number of connections."""
    _subscribed(app)
    rows: list[Row] = []
    with bench_stage.served(app) as server:
        for count in (1, 8, 16, 64, 128, 256):
            rates, full, half = _loaded(server, scale, connections=count, size=1, top=_MOST[1])
            rows.append((count, rates, rates, full, half))
            _tell(f"{count} connections", rows[-1])
    return Curve(
        key="connections",
        title="Single events over HTTP against connections",
        words=(
            "One event a request, durable before it is answered. Requests that are in flight"
            " together share a commit, so that throughput grows with connections."
        ),
        panels=_pair("connections", rows, throughput="events/s"),
        columns=("connections", "events/s", "requests/s", "p99 ms, full load", "p99 ms, half"),
        rows=tuple(rows),
    )


def history(app: App, scale: Scale) -> Curve:
    """Throughput of the library while it counts event after event, up to the longest history."""
    usage, _ = _subscribed(app)
    some = list(islice((one for each in repeat(usage) for one in each), scale.chunk))
    warm = bench_events.events(usage, "warm")
    data = bench_work.rows_of(app, warm)
    bench_work.ingest(app, warm, threads=2)  # opens windows, fills caches
    rates: list[tuple[int, float]] = []
    copies: dict[int, float] = {}
    done = 0
    waiting = list(scale.histories)
    with console.progress("events", scale.histories[-1] + 3 * scale.chunk) as advance:
        while done < scale.histories[-1] + 3 * scale.chunk:
            if waiting and done >= waiting[0]:
                found = [bench_work.copy(app.database, data, len(warm), anew=True)]
                found += [bench_work.copy(app.database, data, len(warm), anew=True)]
                copies[waiting.pop(0)] = middle(found)
            made = bench_events.events(some, f"h{done}")
            rates.append((done, bench_work.ingest(app, made, threads=2)))
            done += scale.chunk
            advance(scale.chunk)
    rows: list[Row] = []
    for size in scale.histories:
        rate = near(rates, size)
        rows.append((size, rate, rate / near(rates, 0), copies[size], rate / copies[size]))
        _tell(f"{size:,} events of history", rows[-1])
    points = tuple((float(at), rate) for at, rate in rates)
    return Curve(
        key="history",
        title="Library ingest against history",
        words=(
            "Events of the trace's skew, counted one batch after the other in two threads until the"
            " longest history. Each row is the median of the three chunks of"
            f" {scale.chunk:,} events that follow; beside it a COPY of the same rows into an empty"
            " table of the same keys, which shows how the machine itself fared at that time."
        ),
        panels=(
            Panel(
                "Throughput", "events of history", "events/s",
                (Line("library ingest", points),), steps=False,
            ),
        ),
        columns=("history", "events/s", "x empty", "bare COPY rows/s", "x bare COPY"),
        rows=tuple(rows),
        facts=(Fact("throughput at the longest history against empty", rows[-1][2] or 0.0, 0.7),),
    )  # fmt: skip


def naive(app: App, scale: Scale) -> Curve:
    """INSERT an event and SUM the history for every check, beside ours, as history grows."""
    rows: list[Row] = []
    for events in scale.naive:
        pair = bench_work.Naive(app, size=NAIVE_CUSTOMERS, history=events, tag=f"{events}-")
        checks = scale.naive_checks
        slow = middle([pair.naive(checks) for _ in range(scale.repetitions)])
        ours = middle(
            [pair.counted(checks * 50, f"n{events}-{n}") for n in range(scale.repetitions)]
        )
        rows.append((events, slow, ours, ours / slow))
        _tell(f"{events:,} events a customer", rows[-1])
    lines = (
        Line("INSERT + SUM", tuple((row[0] or 0, row[1] or 0) for row in rows)),
        Line("library ingest", tuple((row[0] or 0, row[2] or 0) for row in rows)),
    )
    ratio = Line("ratio", tuple((row[0] or 0, row[3] or 0) for row in rows))
    return Curve(
        key="naive",
        title="Against the usual first design: INSERT an event, SUM for every check",
        words=(
            "The naive way reads a customer's whole period for every decision; ours reads one row,"
            f" which the event's own transaction moved. {NAIVE_CUSTOMERS} customers."
        ),
        panels=(
            Panel("Throughput", "events of history a customer", "events/s", lines),
            Panel("How many times faster", "events of history a customer", "ratio", (ratio,)),
        ),
        columns=("history a customer", "INSERT + SUM events/s", "ours events/s", "ratio"),
        rows=tuple(rows),
        facts=(Fact("ours against INSERT + SUM at the longest history", rows[-1][3] or 0.0, 25),),
    )


def billing(app: App, scale: Scale) -> Curve:
    """Invoices a second against the number of subscriptions in one run.

    Each run finds one boundary a customer: of those from before the next one, of the new the first.
    """
    rows: list[Row] = []
    calendar = Calendar(bench_events.START, "UTC", Interval.MONTH)
    made = 0
    for place, size in enumerate(scale.subscriptions):
        start = calendar.boundary(place)
        for at in range(made, size, 50_000):
            keys = [f"billed-{n:07d}" for n in range(at, min(at + 50_000, size))]
            bench_work.subscribe(app, keys, start=start)
        made = size
        rate, report = bench_work.bill(app, start + timedelta(hours=2))
        require(report.invoices == size, "each customer has one invoice")
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        rows.append((size, rate, report.invoices, worker or None))
        _tell(f"{size:,} subscriptions", rows[-1])
    points = tuple((row[0] or 0, row[1] or 0) for row in rows)
    return Curve(
        key="billing",
        title="A billing run against subscriptions",
        words="A complete run, one boundary a customer: periods, owed less billed, lines,"
        " transfers, numbers, outbox; each page is one durable transaction"
        " (`synchronous_commit = on`).",
        panels=(
            Panel(
                "Throughput", "subscriptions", "invoices/s", (Line("billing run", points),)
            ),
        ),
        columns=("subscriptions", "invoices/s", "invoices", "largest worker so far, MiB"),
        rows=tuple(rows),
        facts=(Fact("invoices a second in the largest run", rows[-1][1] or 0.0, 5_000),),
    )  # fmt: skip


Measure = Callable[[App, Scale], Curve]
CURVES: Final[Mapping[str, Measure]] = {
    "batch": batch,
    "connections": connections,
    "history": history,
    "naive": naive,
    "billing": billing,
}


def _subscribed(app: App) -> tuple[list[bench_events.Usage], str]:
    """Return the trace's usage; its customers are on a plan."""
    usage, source = bench_events.skewed()
    bench_work.subscribe(app, sorted({one.subject for one in usage}))
    return usage, source


def _loaded(
    server: Server, scale: Scale, *, connections: int, size: int, top: int
) -> tuple[float, float, float]:
    """Return the most requests a second, the p99 there, and the p99 at half of it, in ms."""
    tag = f"{connections}-{size}"

    def run(rate: float, name: str) -> tuple[float, float]:
        done = server.load(
            "/v1/events", connections=connections, seconds=scale.seconds, size=size, rate=rate,
            events=int(scale.seconds * (rate * size or top)), tag=f"{tag}-{name}",
        )  # fmt: skip
        return done.requests / done.seconds, done.p99 * 1_000

    run(0.0, "warm")
    found = [run(0.0, f"full{n}") for n in range(scale.repetitions)]
    most = middle([rate for rate, _ in found])
    halves = max(1, scale.repetitions - 1)
    half = middle([run(most / 2, f"half{n}")[1] for n in range(halves)])
    return most, middle([p99 for _, p99 in found]), half


def _pair(label: str, rows: list[Row], *, throughput: str) -> tuple[Panel, Panel]:
    """Return the panels of throughput and of delay."""

    def line(name: str, column: int) -> Line:
        return Line(name, tuple((row[0] or 0, row[column] or 0) for row in rows))

    return (
        Panel("Throughput", label, throughput, (line("throughput", 1),)),
        Panel("Delay, 99th percentile", label, "ms", (line("half load", 4), line("full load", 3))),
    )


def _tell(what: str, row: Row) -> None:
    console.say(f"  {what}: {'  '.join(number(cell) for cell in row[1:] if cell is not None)}")
