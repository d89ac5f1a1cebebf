"""Rates of exchange, the tax of documents in the seller's own currency, and evidence of places."""

from convergio.infra.migrate import run_sql_beside

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
