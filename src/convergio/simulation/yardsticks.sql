-- name: make_bare#
-- A table with the keys of usage_event, for the rate at which Postgres itself takes rows.
CREATE TABLE bench_bare (LIKE usage_event INCLUDING ALL);

-- name: copy_bare!
-- Load prepared rows with nothing around it.
COPY bench_bare
    (customer_id, event_key, type, occurred_at, received_at, properties, source, event_id)
FROM STDIN (FORMAT BINARY);

-- name: empty_bare#
-- Begin again with nothing in it.
TRUNCATE bench_bare;

-- name: empty_naive#
-- Begin again without history.
TRUNCATE bench_naive;

-- name: make_naive#
-- The usual first design: one row an event, and a sum whenever somebody asks.
CREATE TABLE bench_naive (
    naive_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id uuid NOT NULL,
    quantity    numeric(38, 9) NOT NULL,
    occurred_at timestamptz NOT NULL
);

-- name: index_naive#
-- The index that its authors add when the sum becomes slow.
CREATE INDEX bench_naive_customer ON bench_naive (customer_id, occurred_at);

-- name: fill_naive!
-- History: so many events of a customer before the measurement.
INSERT INTO bench_naive (customer_id, quantity, occurred_at)
SELECT :customer_id, 1, :since::timestamptz + make_interval(secs => n)
FROM generate_series(1, :events) AS n;

-- name: analyze_naive#
-- Statistics, as autovacuum would have gathered them by now.
ANALYZE bench_naive;

-- name: sum_naive$
-- The check: how much was used since the period began?
SELECT coalesce(sum(quantity), 0) FROM bench_naive
WHERE customer_id = :customer_id AND occurred_at >= :since::timestamptz;

-- name: insert_naive!
-- The count.
INSERT INTO bench_naive (customer_id, quantity, occurred_at)
VALUES (:customer_id, 1, :occurred_at);
