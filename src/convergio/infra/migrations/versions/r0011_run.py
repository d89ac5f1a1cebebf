"""The pages of a billing run, so that runs share the work."""

from convergio.infra.migrate import run_sql_beside

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
