-- name: copy_facts!
-- Load outbox rows.
COPY outbox_event (type, customer_id, subject, data, occurred_at) FROM STDIN (FORMAT BINARY);

-- name: schema_version$
-- The revision that Alembic has recorded, or none.
SELECT version_num FROM alembic_version LIMIT 1;

-- name: claim_request$
-- Take a request's key until the end of this transaction; false while another one has it.
SELECT pg_try_advisory_xact_lock(
    hashtextextended('request:' || :customer_id::uuid || ':' || :idempotency_key::text, 0));

-- name: find_answer^
-- What was answered under a key.
SELECT fingerprint, status, body
FROM request_answer
WHERE customer_id = :customer_id AND idempotency_key = :idempotency_key;

-- name: insert_answer!
-- Keep an answer with the effect that it tells of.
INSERT INTO request_answer (
    customer_id, idempotency_key, fingerprint, status, body, answered_at)
VALUES (:customer_id, :idempotency_key, :fingerprint, :status, :body, :answered_at);

-- name: delete_answers!
-- Forget the oldest answers from before an instant, a bounded number at a time.
DELETE FROM request_answer
WHERE (customer_id, idempotency_key) IN (
    SELECT old.customer_id, old.idempotency_key
    FROM request_answer AS old
    WHERE old.answered_at < :before
    ORDER BY old.answered_at
    LIMIT :size_max);
