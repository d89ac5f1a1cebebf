-- Negotiated prices, prices by dimension, and how a customer pays.

-- billing: how a customer's invoices are collected; who has no row pays by the card on file within
-- the seller's usual days. `send_invoice` is never charged: the customer transfers the money.
CREATE TABLE billing_terms (
    customer_id uuid PRIMARY KEY REFERENCES customer,
    collection  text COLLATE "C" NOT NULL
        CHECK (collection IN ('charge_automatically', 'send_invoice')),
    net_days    integer CHECK (net_days BETWEEN 0 AND 365), -- NULL: the seller's
    updated_at  timestamptz NOT NULL
);

-- payments: money that came outside of a gateway, as someone saw it on a bank statement. What pays
-- no invoice is the customer's balance.
CREATE TABLE receipt (
    customer_id uuid NOT NULL REFERENCES customer,
    receipt_id  uuid NOT NULL,
    method      text COLLATE "C" NOT NULL
        CHECK (method IN ('bank_transfer', 'check', 'cash', 'other')),
    reference   text COLLATE "C" NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    currency    text COLLATE "C" NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    received_on date NOT NULL,
    invoice_id  uuid, -- the one that it was meant for; NULL: the oldest open ones
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, receipt_id),
    UNIQUE (customer_id, method, reference),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice
);
CREATE TABLE receipt_part (
    customer_id uuid NOT NULL,
    receipt_id  uuid NOT NULL,
    invoice_id  uuid NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (customer_id, receipt_id, invoice_id),
    FOREIGN KEY (customer_id, receipt_id) REFERENCES receipt,
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice
);
CREATE INDEX receipt_part_invoice ON receipt_part (customer_id, invoice_id);

-- catalog: a fee that is asked once, charges by a value of a dimension, what is sold beside a plan,
-- and prices that one customer alone has (customer_id), which are never on sale.
ALTER TABLE price
    ADD COLUMN once boolean NOT NULL DEFAULT false,
    ADD COLUMN dimension text COLLATE "C",
    ADD COLUMN charges jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN customer_id uuid;
-- The least that is asked for, in minor units by currency.
ALTER TABLE catalog_state ADD COLUMN minimum_charge jsonb NOT NULL DEFAULT '{}';
ALTER TABLE plan ADD COLUMN add_on boolean NOT NULL DEFAULT false;

-- subscriptions: which add-on an item is of; NULL: the plan's.
ALTER TABLE subscription_item ADD COLUMN add_on_key text COLLATE "C";

-- subscriptions: the steps of a ramp wait in a row; the first of them is what waits next.
-- squawk-ignore ban-drop-constraint
ALTER TABLE subscription_change DROP CONSTRAINT subscription_change_state_check;
ALTER TABLE subscription_change ADD CONSTRAINT subscription_change_state_check
    CHECK (state IN ('pending', 'queued', 'done', 'dropped')) NOT VALID;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX subscription_change_queued
    ON subscription_change (customer_id, subscription_id, effective_at) WHERE state = 'queued';
