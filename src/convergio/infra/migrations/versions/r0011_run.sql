-- The pages of a billing run: a row is written in the transaction that bills its customers, so what
-- is there was done, whoever was killed. `turn` orders beginnings: a page that began after another
-- run did need not be billed again by that run. Its customers are those from `first_id` up to, not
-- with, `until_id`.
CREATE SEQUENCE billing_turn;
CREATE TABLE billing_page (
    first_id  uuid NOT NULL,
    turn      bigint NOT NULL,
    until_id  uuid,
    run_id    uuid NOT NULL REFERENCES billing_run,
    closed    timestamptz NOT NULL,
    customers integer NOT NULL CHECK (customers >= 0),
    report    jsonb NOT NULL,
    PRIMARY KEY (first_id, turn)
);
CREATE INDEX billing_page_run ON billing_page (run_id);
ALTER TABLE billing_run ADD COLUMN turn bigint;
