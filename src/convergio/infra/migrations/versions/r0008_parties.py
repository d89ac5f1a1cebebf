"""Structured addresses, tax numbers and routes of e-invoices."""

from convergio.infra.migrate import run_sql_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
