"""Tax, coupons and promotional credit."""

from convergio.infra.migrate import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
