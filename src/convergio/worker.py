"""The scheduled work of a running product: billing, collection, documents, expiry, sweeping.

Every chore is safe to run twice, at once in two workers, and to be killed at any point: each is a
room's own verb that says so. The worker only decides when.
"""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

from convergio.billing import actions as billing
from convergio.billing import jobs as billing_jobs
from convergio.billing import rendering
from convergio.billing.reporting import Report
from convergio.entitlements import actions as entitlements
from convergio.infra import answers, log
from convergio.infra.jobs import Chore, application
from convergio.metering import retention
from convergio.payments import actions as payments
from convergio.wiring import App
from convergio.wiring import bill as run_billing

_log = log.logger("worker")
GRACEFUL_SECONDS: Final = 20


def chores(product: App) -> dict[str, Chore]:
    """Return what is done regularly, by the task's lasting name."""

    def bill() -> None:
        now = product.clock.now()
        report = run_billing(product, as_of=now, now=now)
        _log.info("billed", **_counts(report))

    def collect() -> None:
        clock = product.clock
        asked = payments.reconcile(product.database, product.gateways, now=clock.now())
        report = payments.collect_due(product.database, product.gateways, clock=clock)
        problems = len(asked.problems) + len(report.problems)
        _log.info(
            "collected", succeeded=report.succeeded, declined=report.declined, problems=problems
        )

    def expire() -> None:
        expired = entitlements.sweep(product.database, now=product.clock.now())
        if expired:
            _log.info("expired", reservations=expired)

    def retain() -> None:
        months = product.settings.usage_keep_months
        if not months:  # events are kept for ever
            return
        with product.database.transaction() as tx:
            billed_until = billing.billed_until(tx)
        for done in retention.retain(
            product.database,
            older_than_months=months,
            billed_until=billed_until,
            folder=product.settings.archive_path,
            form="csv.gz",
            now=product.clock.now(),
        ):
            _log.info("retained", month=done.month, file=done.file, events=done.deleted)

    def forget() -> None:
        gone = answers.sweep(product.database, now=product.clock.now())
        if gone:
            _log.info("forgotten", answers=gone)

    return {
        "convergio.bill": Chore("7 * * * *", bill),
        "convergio.recompute": Chore("37 2 * * *", partial(_recompute, product)),
        "convergio.collect": Chore("*/15 * * * *", collect),
        "convergio.expire_reservations": Chore("* * * * *", expire),
        "convergio.retain_usage": Chore("23 3 * * *", retain),
        "convergio.forget_answers": Chore("41 * * * *", forget),
        "convergio.render_documents": Chore("19 * * * *", partial(_document, product)),
    }


def _counts(report: Report) -> dict[str, object]:
    """Return what a run did, with how many customers were left out for what: never who, or why.

    The report itself is kept with the run, and who waits in `billing_park`.
    """
    codes = Counter(one.code for one in report.problems)
    return billing.report_value(report) | {"problems": dict(sorted(codes.items()))}


def _recompute(product: App) -> None:
    """Compare owed and billed of everything; what differs is a fact, and an error in the log."""
    found = billing_jobs.recompute(product.database, now=product.clock.now())
    if found.customers:
        _log.error(
            "billing differs from what is owed",
            customers=len(found.customers),
            first=str(found.differences[0]),
        )


def _document(product: App) -> None:
    """Write new documents to the folder for them; without one they are rendered when asked for."""
    settings = product.settings
    if settings.documents_folder:
        done = rendering.render_new(
            product.database,
            product.keyring,
            settings.seller,
            Path(settings.documents_folder),
            now=product.clock.now(),
        )
        if done.written:
            _log.info("documented", written=done.written)
        if done.broken:
            _log.error("documents could not be written", broken=done.broken)


def run(product: App) -> None:
    """Work until the process is told to stop."""
    app = application(product.database.dsn, chores(product))

    async def work() -> None:
        async with app.open_async():
            await app.run_worker_async(
                concurrency=2,
                delete_jobs="successful",
                shutdown_graceful_timeout=GRACEFUL_SECONDS,
            )

    asyncio.run(work())
