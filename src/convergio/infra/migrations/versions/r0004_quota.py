"""Leases and spend caps."""

from convergio.infra.migrate import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
