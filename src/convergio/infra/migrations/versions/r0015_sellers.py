"""Who issued a document, as they were then, and the names of its files."""

from convergio.infra.migrate import run_sql_beside

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the table and the columns."""
    run_sql_beside(__file__)
