"""Negotiated prices, prices by dimension, and the states of an invoice."""

from convergio.infra.migrate import run_sql_beside

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
