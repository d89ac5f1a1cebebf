"""Run the revisions: one runner at a time, never waiting long for a lock (see infra/migrate.py)."""

from alembic import context
from sqlalchemy import create_engine, pool

from convergio.infra.migrate import guarded, opened

url = context.config.attributes["dsn"]
engine = create_engine(
    "postgresql+psycopg://", creator=lambda: opened(url), poolclass=pool.NullPool
)
with engine.connect() as connection:
    guarded(connection)
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
