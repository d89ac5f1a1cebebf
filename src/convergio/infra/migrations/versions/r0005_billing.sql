-- Changes of subscriptions, credit notes and the closed-until mark.

-- An item that was changed or paused gives back the unused part of its fee; one that was simply
-- canceled keeps it. `end_reason` is what the credit line says.
ALTER TABLE subscription_item
    ADD COLUMN credited boolean NOT NULL DEFAULT false,
    ADD COLUMN end_reason text;

-- A trial ends at the anchor of its paid periods. `trial_policy` says what follows without a
-- payment method. `closed_until`: periods that begin before it are billed, and `closed_mark` is
-- a number for the usage that they were billed at.
ALTER TABLE subscription
    ADD COLUMN trial_policy text COLLATE "C"
        CHECK (trial_policy IN ('activate', 'pause', 'fall_back')),
    ADD COLUMN fallback_plan_key text COLLATE "C",
    ADD COLUMN closed_until timestamptz,
    ADD COLUMN closed_mark numeric(38, 0) CHECK (closed_mark < 'NaN');

-- Every change that was asked for: done at once, waiting for its instant, or dropped again.
CREATE TABLE subscription_change (
    customer_id     uuid NOT NULL,
    subscription_id uuid NOT NULL,
    change_id       uuid NOT NULL,
    effective_at    timestamptz NOT NULL,
    plan_key        text COLLATE "C" NOT NULL REFERENCES plan,
    price_ids       uuid[] NOT NULL,
    seats           integer NOT NULL CHECK (seats > 0),
    state           text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'done', 'dropped')),
    made_at         timestamptz NOT NULL,
    PRIMARY KEY (customer_id, subscription_id, change_id),
    FOREIGN KEY (customer_id, subscription_id) REFERENCES subscription
);
CREATE UNIQUE INDEX subscription_change_one_pending
    ON subscription_change (customer_id, subscription_id) WHERE state = 'pending';

-- ledger: credit notes, what is taken off a customer's balance, and what is written off. A wider
-- constraint takes the place of the old one.
-- squawk-ignore ban-drop-constraint
ALTER TABLE ledger_transfer DROP CONSTRAINT ledger_transfer_kind_check;
ALTER TABLE ledger_transfer ADD CONSTRAINT ledger_transfer_kind_check CHECK (kind IN
    ('invoice', 'payment', 'fee', 'credit_note', 'balance', 'excess', 'write_off')) NOT VALID;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ledger_transfer_customer_credit ON ledger_transfer (customer_id)
    WHERE debit_account = 'customer_credit' OR credit_account = 'customer_credit';

-- billing: what else settles an invoice beside payments. A payment beyond what is due (`excess`)
-- moves to the customer's balance.
ALTER TABLE invoice
    ADD COLUMN credited bigint NOT NULL DEFAULT 0,
    ADD COLUMN from_balance bigint NOT NULL DEFAULT 0,
    ADD COLUMN excess bigint NOT NULL DEFAULT 0;
-- squawk-ignore ban-drop-constraint
ALTER TABLE invoice DROP CONSTRAINT invoice_check;
ALTER TABLE invoice ADD CONSTRAINT invoice_check CHECK (
    credited >= 0 AND from_balance >= 0 AND excess >= 0 AND excess <= paid
    AND paid - excess + credited + from_balance <= total) NOT VALID;
-- A line that takes back a part of an earlier one names it.
ALTER TABLE invoice_line
    ADD COLUMN origin_invoice_id uuid,
    ADD COLUMN origin_line integer;
CREATE TABLE credit_note (
    customer_id    uuid NOT NULL,
    credit_note_id uuid NOT NULL,
    invoice_id     uuid NOT NULL,
    series         text COLLATE "C" NOT NULL,
    year           integer NOT NULL,
    number         bigint NOT NULL CHECK (number > 0),
    kind           text COLLATE "C" NOT NULL CHECK (kind IN ('correction', 'concession')),
    reason         text NOT NULL,
    currency       text COLLATE "C" NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    total          bigint NOT NULL CHECK (total > 0),
    applied        bigint NOT NULL CHECK (applied >= 0 AND applied <= total),
    issued_on      date NOT NULL,
    finalized_at   timestamptz NOT NULL,
    sealed_buyer   bytea NOT NULL,
    PRIMARY KEY (customer_id, credit_note_id),
    UNIQUE (customer_id, series, year, number),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice
);
CREATE INDEX credit_note_invoice ON credit_note (customer_id, invoice_id);
CREATE TABLE credit_note_line (
    customer_id    uuid NOT NULL,
    credit_note_id uuid NOT NULL,
    line_number    integer NOT NULL CHECK (line_number > 0),
    invoice_id     uuid NOT NULL,
    invoice_line   integer NOT NULL,
    description    text NOT NULL,
    quantity       numeric(38, 9) NOT NULL CHECK (quantity < 'NaN'),
    amount         bigint NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (customer_id, credit_note_id, line_number),
    FOREIGN KEY (customer_id, credit_note_id) REFERENCES credit_note,
    FOREIGN KEY (customer_id, invoice_id, invoice_line) REFERENCES invoice_line
);
CREATE INDEX credit_note_line_credits
    ON credit_note_line (customer_id, invoice_id, invoice_line);
-- Whom the run leaves out until the reason is gone.
CREATE TABLE billing_park (
    customer_id uuid PRIMARY KEY,
    code        text COLLATE "C" NOT NULL,
    reason      text NOT NULL,
    parked_at   timestamptz NOT NULL
);
