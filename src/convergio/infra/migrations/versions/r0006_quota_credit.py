"""Prepaid grants, limits per seat, authorizations that are asked twice."""

from convergio.infra.migrate import run_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create them."""
    run_sql_beside(__file__)
