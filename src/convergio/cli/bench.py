"""`convergio bench`: how fast, as ratios of works that ran in turns on one database (DESIGN 7).

Nothing is written but the bench's own database, `<database>_bench`, which is dropped at the end.
"""

import os
import platform
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from convergio.cli import bench_curves, bench_stage, console
from convergio.cli.bench_http import GOOD, PROCESSES, Server
from convergio.kernel.periods import Calendar, Interval
from convergio.simulation import bench_documents, bench_events, bench_work
from convergio.simulation.bench_figures import Figure, cells, middle, table
from convergio.simulation.bench_load import Answered
from convergio.wiring import App

EXAMPLE: Final = "convergio bench --quick; convergio bench curves --only history"
app = console.command_app("Measure speed as ratios in one run.", EXAMPLE)
app.command("curves")(bench_curves.command)

SINGLE_CONNECTIONS: Final = 64
BATCH_CONNECTIONS: Final = 8
OVERLOAD_CONNECTIONS: Final = 256
_OVERLOAD_A_SECOND_MAX: Final = 200_000
_EVENTS_A_SECOND_MAX: Final = 20_000
LEASE_DECISIONS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each work."""

    repetitions: int
    seconds: float
    uniform: int
    history_customers: int
    history: int
    naive_checks: int
    charges: int
    documents: int


FULL: Final = Size(5, 4.0, 20_000, 20, 10_000, 600, 20_000, 300)
QUICK: Final = Size(3, 1.5, 4_000, 5, 10_000, 200, 5_000, 60)


@dataclass(slots=True)
class Bench:
    """What is measured so far; `label` keeps the ids of repetitions apart."""

    product: App
    size: Size
    trace: Path
    figures: list[Figure] = field(default_factory=list)
    labels: int = 0

    def add(self, figure: Figure) -> float:
        """Keep a figure, tell it, return its value."""
        self.figures.append(figure)
        console.say("  " + "  ".join(cell for cell in cells(figure) if cell))
        return figure.value

    def label(self) -> str:
        """Return a new word for ids."""
        self.labels += 1
        return f"b{self.labels}"


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option(help="A tenth of the time, with more noise.")] = False,
    trace: Annotated[
        Path, typer.Option(help="The trace whose skew is used; a synthetic one without it.")
    ] = bench_events.TRACE,
    as_json: console.Json = False,
) -> None:
    """Measure ingest, authorize, rating and billing against yardsticks; exits with 0 all the same.

    The table says what each figure must reach. Run it on a quiet machine. `bench curves` draws
    throughput and delay against batch size, history, connections and subscriptions.
    """
    if context.invoked_subcommand is not None:
        return
    with bench_stage.product() as product:
        bench = Bench(product, QUICK if quick else FULL, trace)
        usage, source = bench_events.skewed(trace)
        conditions = {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "load_average": round(os.getloadavg()[0], 2),
            "skew": source,
            "load": f"raw sockets from a process of its own; {PROCESSES} server processes",
            "repetitions": bench.size.repetitions,
        }
        console.say(f"bench: {conditions}")
        library = measure_library(bench, usage)
        measure_naive(bench)
        measure_http(bench, library)
        measure_money(bench)
        measure_documents(bench)
        bench_stage.check(product)
    value = conditions | {"figures": [figure.as_json() for figure in bench.figures]}
    console.emit(value, as_json=as_json, text=table(bench.figures))


def measure_library(bench: Bench, usage: list[bench_events.Usage]) -> float:
    """COPY and library ingest in turns, skewed and uniform; return the skewed events a second."""
    console.say("bench: library ingest against a bare COPY of the same rows")
    bench_work.subscribe(bench.product, sorted({one.subject for one in usage}))
    bench_work.subscribe(bench.product, bench_events.uniform_keys(bench.size.uniform))
    even = bench_events.uniform(bench.size.uniform, 2 * len(usage))
    # twice the trace: the first and the last batch overlap nothing, and should weigh little
    found = _copy_and_ingest(
        bench, "skew", "skew of the trace", usage * 2, ratio_min=0.3, aim="0.5"
    )
    _copy_and_ingest(bench, "uniform", f"{bench.size.uniform:,} customers", even)
    return found


def _copy_and_ingest(
    bench: Bench,
    key: str,
    what: str,
    usage: list[bench_events.Usage],
    *,
    ratio_min: float | None = None,
    aim: str = "",
) -> float:
    copied, counted = [], []
    for repetition in range(bench.size.repetitions + 1):
        made = bench_events.events(usage, bench.label())
        data = bench_work.rows_of(bench.product, made)
        copy_rate = bench_work.copy(bench.product.database, data, len(made))
        rate = bench_work.ingest(bench.product, made, threads=2)
        if repetition:  # the first one opens windows and fills caches
            copied.append(copy_rate)
            counted.append(rate)
    copy = bench.add(Figure(f"copy_{key}", f"bare COPY, {what}", middle(copied), "rows/s"))
    ingest = middle(counted)
    bench.add(
        Figure(
            f"ingest_{key}", f"library ingest, {what}", ingest, "events/s",
            ratio=ingest / copy, of="bare COPY", ratio_min=ratio_min, aim=aim,
        )
    )  # fmt: skip
    return ingest


def measure_naive(bench: Bench) -> None:
    """Time the usual first design on a long history, and ours on the same."""
    size = bench.size
    console.say(f"bench: INSERT + SUM with {size.history:,} events of history a customer")
    pair = bench_work.Naive(bench.product, size=size.history_customers, history=size.history)
    naive, counted, asked = [], [], []
    for _ in range(size.repetitions):
        naive.append(pair.naive(size.naive_checks))
        counted.append(pair.counted(size.naive_checks * 50, bench.label()))
        asked.append(pair.asked(size.naive_checks * 10, bench.label()))
    what = f"{size.history:,} events a customer"
    slow = bench.add(Figure("naive", f"INSERT + SUM an event, {what}", middle(naive), "events/s"))
    bench.add(
        Figure(
            "ours", f"library ingest, {what}", middle(counted), "events/s",
            ratio=middle(counted) / slow, of="INSERT + SUM", ratio_min=25, aim="100",
        )
    )  # fmt: skip
    bench.add(
        Figure(
            "ours_asked", f"authorize, then ingest, {bench_work.CALLERS} callers, {what}",
            middle(asked), "events/s", ratio=middle(asked) / slow, of="INSERT + SUM",
        )
    )  # fmt: skip


def measure_http(bench: Bench, library: float) -> None:
    """Time HTTP: batches, single events beside a route that does nothing, authorize."""
    with bench_stage.served(bench.product) as server:
        for size in (200, 1_000):
            _batches(bench, server, size, library)
        _singles(bench, server)
        _authorize(bench, server)
        _overload(bench, server)


def _batches(bench: Bench, server: Server, size: int, library: float) -> None:
    rates = []
    events = -(-bench_events.SKEWED_EVENTS // size) * size * 2
    for repetition in range(bench.size.repetitions + 1):
        done = server.load(
            "/v1/events", connections=BATCH_CONNECTIONS, seconds=60.0, events=events, size=size,
            tag=bench.label(), trace=str(bench.trace),
        )  # fmt: skip
        if repetition:  # the first one fills the caches of the server processes
            rates.append(done.events / done.seconds)
    bench.add(
        Figure(
            f"http_{size}", f"HTTP ingest, {size:,} events a request", middle(rates), "events/s",
            ratio=middle(rates) / library, of="library", ratio_min=0.6, aim="1.0",
        )
    )  # fmt: skip


def _run(bench: Bench, server: Server, path: str, *, size: int, rate: float = 0.0) -> Answered:
    return server.load(
        path,
        connections=SINGLE_CONNECTIONS,
        seconds=bench.size.seconds,
        events=int(bench.size.seconds * (rate or _EVENTS_A_SECOND_MAX)),
        size=size,
        tag=bench.label(),
        rate=rate,
        trace=str(bench.trace),
    )


def _singles(bench: Bench, server: Server) -> None:
    nothing, single, p99 = [], [], []
    for _ in range(bench.size.repetitions):
        done = server.load(
            "/healthz", connections=SINGLE_CONNECTIONS, seconds=bench.size.seconds,
            events=int(bench.size.seconds * 60_000),
        )  # fmt: skip
        nothing.append(done.requests / done.seconds)
        done = _run(bench, server, "/v1/events", size=1)
        single.append(done.requests / done.seconds)
        p99.append(done.p99 * 1_000)
    idle = bench.add(
        Figure("http_noop", "HTTP, a route that does nothing", middle(nothing), "requests/s")
    )
    what = f"HTTP, one event a request, {SINGLE_CONNECTIONS} connections"
    bench.add(
        Figure(
            "http_single", what, middle(single), "events/s", ratio=middle(single) / idle,
            of="nothing", ratio_min=0.3, aim="0.5",
        )
    )  # fmt: skip
    bench.add(Figure("http_single_p99", f"{what}: p99", middle(p99), "ms", value_max=25))


def _authorize(bench: Bench, server: Server) -> None:
    most, p99 = [], []
    for _ in range(bench.size.repetitions):
        done = _run(bench, server, "/v1/authorize", size=0)
        most.append(done.requests / done.seconds)
    fastest = bench.add(
        Figure(
            "authorize", f"authorize over HTTP, {SINGLE_CONNECTIONS} connections", middle(most),
            "requests/s",
        )
    )  # fmt: skip
    for _ in range(bench.size.repetitions):
        done = _run(bench, server, "/v1/authorize", size=0, rate=fastest / 2)
        p99.append(done.p99 * 1_000)
    bench.add(
        Figure(
            "authorize_p99", "authorize at half that rate: p99", middle(p99), "ms", value_max=10,
            aim="5",
        )
    )  # fmt: skip
    rates = [bench_work.lease(LEASE_DECISIONS) for _ in range(bench.size.repetitions)]
    what = "a decision by lease, in-process: take and count"
    bench.add(Figure("lease", what, 1_000_000 / middle(rates), "us", value_max=10, aim="2"))


def _overload(bench: Bench, server: Server) -> None:
    """Send far more than the queues hold: the rest is turned away, and memory stays as it is."""
    before = server.resident()
    done = server.load(
        "/v1/events", connections=OVERLOAD_CONNECTIONS, seconds=bench.size.seconds, size=1_000,
        events=int(bench.size.seconds * _OVERLOAD_A_SECOND_MAX), tag=bench.label(),
        trace=str(bench.trace), good=GOOD | {"503"},
    )  # fmt: skip
    what = f"overload: {OVERLOAD_CONNECTIONS} connections, 1,000 events a request"
    counted = done.statuses.get("202", 0) * 1_000 / done.seconds
    away = 100 * done.statuses.get("503", 0) / done.requests
    bench.add(Figure("overload", f"{what}: counted", counted, "events/s"))
    bench.add(Figure("overload_away", f"{what}: turned away with 503", away, "% of requests"))
    grown = max(0.0, (server.peak() - before) / 2**20)
    bench.add(Figure("overload_memory", f"{what}: memory grown by", grown, "MiB", value_max=1_024))


def measure_money(bench: Bench) -> None:
    """Rating, and a billing run over all customers at three boundaries."""
    console.say("bench: rating and billing")
    rates = [bench_work.rating(bench.size.charges) for _ in range(bench.size.repetitions)]
    bench.add(Figure("rating", "rating, graduated, three tiers", middle(rates), "charges/s"))
    found = [bench_work.bill(bench.product, as_of) for as_of in _boundaries()]
    speeds = [speed for speed, _ in found]
    count = found[-1][1].invoices
    bench.add(
        Figure(
            "billing", f"billing run, {count:,} customers, one boundary", middle(speeds),
            "invoices/s", value_min=5_000, aim="10,000",
        )
    )  # fmt: skip


def measure_documents(bench: Bench) -> None:
    """Render invoices, each of another buyer and amount, a processor core's time each."""
    console.say("bench: documents")
    found = bench_documents.speed(bench.size.documents)
    what = "invoice, one page, PDF/A-3 with its XML"
    bench.add(Figure("pdf", what, found.pdf, "a core's second", value_min=50, aim="100"))
    bench.add(Figure("pdf_plain", "... without XML", found.pdf_without_xml, "a core's second"))
    bench.add(Figure("xml", "... the XML alone (EN 16931)", found.factur_x, "a core's second"))
    bench.add(Figure("fatturapa", "FatturaPA XML", found.fatturapa, "a core's second"))


def _boundaries() -> list[datetime]:
    """Return instants at which one boundary each is due: a fee, then a fee and usage, again."""
    calendar = Calendar(bench_events.START, "UTC", Interval.MONTH)
    return [calendar.boundary(number) + timedelta(hours=2) for number in range(3)]
