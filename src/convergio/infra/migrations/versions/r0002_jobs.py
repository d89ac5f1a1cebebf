"""The job queue's own tables, functions and triggers, as the pinned procrastinate ships them."""

from procrastinate.schema import SchemaManager

from convergio.infra.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create them."""
    run_sql(SchemaManager.get_schema().encode())
