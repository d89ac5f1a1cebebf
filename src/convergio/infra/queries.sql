-- name: copy_facts!
-- Load outbox rows.
COPY outbox_event (type, customer_id, subject, data, occurred_at) FROM STDIN;

-- name: schema_version$
-- The revision that Alembic has recorded, or none.
SELECT version_num FROM alembic_version LIMIT 1;
