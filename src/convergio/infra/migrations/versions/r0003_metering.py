"""Aggregations, groups, meter versions, corrections and thresholds of usage."""

from convergio.infra.migrate import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
