"""Changes of subscriptions, credit notes and the closed-until mark."""

from convergio.infra.migrate import run_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
