"""The schedule of the product, as procrastinate's periodic tasks.

A task's name is a row in the database, so names never change. Each task is one verb of a room; the
worker edge gives the open product, because nothing below the edges builds one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import procrastinate


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is done regularly: its cron line, and the function that does it."""

    cron: str
    work: Callable[[], None]


def application(dsn: str, chores: Mapping[str, Chore]) -> procrastinate.App:
    """Return a job application with these chores; one of each waits at a time."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    for name, chore in chores.items():
        _register(app, name, chore)

    @app.periodic(cron="*/5 * * * *")
    @app.task(name="convergio.retry_stalled", queueing_lock="convergio.retry_stalled")
    async def retry_stalled(timestamp: int) -> None:  # noqa: ARG001 - procrastinate passes it
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=60):
            await app.job_manager.retry_job(job)

    return app


def _register(app: procrastinate.App, name: str, chore: Chore) -> None:
    @app.periodic(cron=chore.cron)
    @app.task(name=name, queueing_lock=name, lock=name)
    def run(timestamp: int) -> None:  # noqa: ARG001 - procrastinate passes it
        chore.work()
