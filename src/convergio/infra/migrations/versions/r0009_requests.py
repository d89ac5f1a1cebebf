"""Answers kept for retried requests."""

from convergio.infra.migrate import run_sql_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
