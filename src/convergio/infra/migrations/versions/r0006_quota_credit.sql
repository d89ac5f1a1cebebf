-- Prepaid grants, limits per seat, authorizations that are asked twice.
-- Prepaid credit: units of a meter, or money. What was drawn of it is nowhere stored: it follows
-- from the windows and the grants.
CREATE TABLE credit_grant (
    customer_id uuid NOT NULL REFERENCES customer,
    grant_id    uuid NOT NULL,
    key         text COLLATE "C" NOT NULL CHECK (char_length(key) BETWEEN 1 AND 200),
    meter_id    integer REFERENCES meter,
    currency    text COLLATE "C" CHECK (currency ~ '^[a-z]{3}$'),
    category    text COLLATE "C" NOT NULL CHECK (category IN ('promotional', 'purchased')),
    quantity    numeric(38, 9) CHECK (quantity > 0 AND quantity < 'NaN'),
    amount      bigint CHECK (amount > 0),
    priority    integer NOT NULL,
    starts_at   timestamptz NOT NULL,
    expires_at  timestamptz,
    created_at  timestamptz NOT NULL,
    voided_at   timestamptz,
    note        text NOT NULL DEFAULT '',
    PRIMARY KEY (customer_id, grant_id),
    UNIQUE (customer_id, key),
    CHECK ((meter_id IS NULL) <> (currency IS NULL)),
    CHECK ((meter_id IS NULL) = (quantity IS NULL)),
    CHECK ((currency IS NULL) = (amount IS NULL)),
    CHECK (expires_at IS NULL OR starts_at < expires_at)
);

-- The credits in units that a customer's windows are cut by and may draw, as the schedule has them.
ALTER TABLE usage_schedule ADD COLUMN credits jsonb NOT NULL DEFAULT '[]';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX usage_schedule_credits ON usage_schedule (customer_id) WHERE credits <> '[]';

-- What a window shares with others, where it does: the start of its period, what earlier windows
-- of that used, what alerts are percentages of, what is free in this window, what there is to draw.
ALTER TABLE usage_total
    ADD COLUMN period_at timestamptz,
    ADD COLUMN earlier numeric(38, 9) CHECK (earlier >= 0 AND earlier < 'NaN'),
    ADD COLUMN base numeric(38, 9) CHECK (base >= 0 AND base < 'NaN'),
    ADD COLUMN free numeric(38, 9) CHECK (free >= 0 AND free < 'NaN'),
    ADD COLUMN credit numeric(38, 9) CHECK (credit >= 0 AND credit < 'NaN');
