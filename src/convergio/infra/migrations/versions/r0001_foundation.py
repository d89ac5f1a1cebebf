"""The foundation: tables of every room of the main job."""

from convergio.infra.migrate import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
