"""Which subscriptions follow the calendar."""

from convergio.infra.migrate import run_sql_beside

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column."""
    run_sql_beside(__file__)
