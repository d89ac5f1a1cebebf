-- Answers kept for retried requests.

-- What was answered under an Idempotency-Key, stored by the transaction that did the work: a retry
-- after a crash finds either both or neither. Requests of the seller's own API keys stand under
-- the customer of zeros; a key that belongs to a customer stands under that customer.
CREATE TABLE request_answer (
    customer_id     uuid NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL
        CHECK (idempotency_key ~ '^[!-~]+$' AND length(idempotency_key) <= 255),
    fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 32),
    status          integer NOT NULL CHECK (status BETWEEN 200 AND 299),
    body            bytea NOT NULL,
    answered_at     timestamptz NOT NULL,
    PRIMARY KEY (customer_id, idempotency_key)
);
CREATE INDEX request_answer_age ON request_answer (answered_at);
