"""What the mends of the billing rooms store."""

from convergio.infra.migrate import run_sql_beside

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
