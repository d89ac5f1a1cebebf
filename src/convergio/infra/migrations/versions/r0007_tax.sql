-- Tax, coupons and promotional credit.

-- catalog: what a price is taxed as, and whether the tax is inside it.
ALTER TABLE price
    ADD COLUMN tax_category text COLLATE "C" NOT NULL DEFAULT 'standard',
    ADD COLUMN tax_inclusive boolean NOT NULL DEFAULT false;

-- billing: where the seller is registered and which rates are in force. Without the one row of
-- `tax_state` nothing is taxed.
CREATE TABLE tax_state (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version        bigint NOT NULL,
    seller_country text COLLATE "C" NOT NULL CHECK (seller_country ~ '^[A-Z]{2}$'),
    one_stop_shop  boolean NOT NULL,
    applied_at     timestamptz NOT NULL
);
CREATE TABLE tax_registration (
    country    text COLLATE "C" NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    region     text COLLATE "C" NOT NULL DEFAULT '',
    valid_from date NOT NULL,
    valid_to   date,
    PRIMARY KEY (country, region, valid_from),
    CHECK (valid_from < valid_to),
    CONSTRAINT tax_registration_no_overlap EXCLUDE USING gist (
        country WITH =, region WITH =, daterange(valid_from, valid_to) WITH &&)
);
CREATE TABLE tax_rate (
    country    text COLLATE "C" NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    region     text COLLATE "C" NOT NULL DEFAULT '',
    category   text COLLATE "C" NOT NULL,
    valid_from date NOT NULL,
    valid_to   date,
    percent    numeric(9, 6) NOT NULL CHECK (percent >= 0 AND percent < 'NaN'),
    is_exempt  boolean NOT NULL,
    reason     text,
    PRIMARY KEY (country, region, category, valid_from),
    CHECK (valid_from < valid_to),
    CHECK (NOT is_exempt OR percent = 0),
    CONSTRAINT tax_rate_no_overlap EXCLUDE USING gist (
        country WITH =, region WITH =, category WITH =, daterange(valid_from, valid_to) WITH &&)
);

-- What was looked at when a tax number was called verified; the number itself is not here.
CREATE TABLE tax_id_check (
    customer_id uuid NOT NULL REFERENCES customer,
    check_id    uuid NOT NULL,
    country     text COLLATE "C" NOT NULL,
    checker     text COLLATE "C" NOT NULL,
    is_valid    boolean NOT NULL,
    evidence    text NOT NULL,
    checked_at  timestamptz NOT NULL,
    PRIMARY KEY (customer_id, check_id)
);

-- Coupons, who redeemed them, and what they took off which line.
CREATE TABLE coupon (
    coupon_id      uuid PRIMARY KEY,
    code           text COLLATE "C" NOT NULL UNIQUE,
    name           text NOT NULL,
    percent        numeric(9, 6)
        CHECK (percent > 0 AND percent <= 100 AND percent < 'NaN'),
    amount         bigint CHECK (amount > 0),
    currency       text COLLATE "C" CHECK (currency ~ '^[a-z]{3}$'),
    duration       text COLLATE "C" NOT NULL CHECK (duration IN ('once', 'repeating', 'forever')),
    periods        integer CHECK (periods > 0),
    plans          text[] NOT NULL,
    prices         text[] NOT NULL,
    redeem_by      timestamptz,
    limit_in_all   integer CHECK (limit_in_all > 0),
    limit_customer integer NOT NULL CHECK (limit_customer > 0),
    redeemed       integer NOT NULL DEFAULT 0 CHECK (redeemed >= 0),
    created_at     timestamptz NOT NULL,
    archived_at    timestamptz,
    CHECK ((percent IS NULL) <> (amount IS NULL)),
    CHECK ((amount IS NULL) = (currency IS NULL)),
    CHECK ((duration = 'repeating') = (periods IS NOT NULL)),
    CHECK (redeemed <= limit_in_all)
);
-- It counts for the periods `first_period` to `last_period` of the calendar that is written here,
-- whatever becomes of the subscription; without `price_keys`, for every price.
CREATE TABLE coupon_redemption (
    customer_id   uuid NOT NULL REFERENCES customer,
    redemption_id uuid NOT NULL,
    coupon_id     uuid NOT NULL REFERENCES coupon,
    redeemed_at   timestamptz NOT NULL,
    anchor_at     timestamptz NOT NULL,
    time_zone     text COLLATE "C" NOT NULL,
    interval      text COLLATE "C" NOT NULL
        CHECK (interval IN ('day', 'week', 'month', 'quarter', 'year')),
    first_period  integer NOT NULL CHECK (first_period >= 0),
    last_period   integer,
    price_keys    text[],
    PRIMARY KEY (customer_id, redemption_id),
    CHECK (first_period <= last_period)
);
CREATE TABLE coupon_draw (
    customer_id   uuid NOT NULL,
    redemption_id uuid NOT NULL,
    invoice_id    uuid NOT NULL,
    line_number   integer NOT NULL,
    period_number integer NOT NULL,
    amount        bigint NOT NULL CHECK (amount > 0),
    returned_at   timestamptz,
    PRIMARY KEY (customer_id, redemption_id, invoice_id, line_number),
    FOREIGN KEY (customer_id, redemption_id) REFERENCES coupon_redemption,
    FOREIGN KEY (customer_id, invoice_id, line_number) REFERENCES invoice_line
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX coupon_draw_invoice ON coupon_draw (customer_id, invoice_id);
-- What promotional credit in money took off which line.
CREATE TABLE credit_grant_draw (
    customer_id uuid NOT NULL,
    grant_id    uuid NOT NULL,
    invoice_id  uuid NOT NULL,
    line_number integer NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    returned_at timestamptz,
    PRIMARY KEY (customer_id, grant_id, invoice_id, line_number),
    FOREIGN KEY (customer_id, invoice_id, line_number) REFERENCES invoice_line
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX credit_grant_draw_invoice ON credit_grant_draw (customer_id, invoice_id);

-- Documents: `amount` of a line is before discount, `total` of a document is with tax.
ALTER TABLE invoice
    ADD COLUMN subtotal bigint NOT NULL DEFAULT 0,
    ADD COLUMN discount bigint NOT NULL DEFAULT 0,
    ADD COLUMN tax bigint NOT NULL DEFAULT 0 CHECK (tax >= 0);
UPDATE invoice SET subtotal = total;
ALTER TABLE invoice_line
    ADD COLUMN discount bigint NOT NULL DEFAULT 0,
    ADD COLUMN tax_category text COLLATE "C" NOT NULL DEFAULT 'standard',
    ADD COLUMN tax_rate numeric(9, 6) NOT NULL DEFAULT 0
        CHECK (tax_rate >= 0 AND tax_rate < 'NaN'),
    ADD COLUMN tax_treatment text COLLATE "C" NOT NULL DEFAULT 'none'
        CHECK (tax_treatment IN
            ('standard', 'zero', 'exempt', 'reverse_charge', 'export', 'none')),
    ADD COLUMN tax_inclusive boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT invoice_line_discount_check CHECK (
        abs(discount) <= abs(amount) AND discount * sign(amount) >= 0) NOT VALID;
ALTER TABLE credit_note
    ADD COLUMN subtotal bigint NOT NULL DEFAULT 0,
    ADD COLUMN discount bigint NOT NULL DEFAULT 0,
    ADD COLUMN tax bigint NOT NULL DEFAULT 0 CHECK (tax >= 0);
UPDATE credit_note SET subtotal = total;
ALTER TABLE credit_note_line ADD COLUMN discount bigint NOT NULL DEFAULT 0;
CREATE TABLE invoice_tax (
    customer_id uuid NOT NULL,
    invoice_id  uuid NOT NULL,
    category    text COLLATE "C" NOT NULL,
    rate        numeric(9, 6) NOT NULL CHECK (rate >= 0 AND rate < 'NaN'),
    treatment   text COLLATE "C" NOT NULL CHECK (treatment IN
        ('standard', 'zero', 'exempt', 'reverse_charge', 'export', 'none')),
    inclusive   boolean NOT NULL,
    net         bigint NOT NULL CHECK (net >= 0),
    tax         bigint NOT NULL CHECK (tax >= 0),
    reason      text,
    PRIMARY KEY (customer_id, invoice_id, category, rate, treatment, inclusive),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE credit_note_tax (
    customer_id    uuid NOT NULL,
    credit_note_id uuid NOT NULL,
    category       text COLLATE "C" NOT NULL,
    rate           numeric(9, 6) NOT NULL CHECK (rate >= 0 AND rate < 'NaN'),
    treatment      text COLLATE "C" NOT NULL CHECK (treatment IN
        ('standard', 'zero', 'exempt', 'reverse_charge', 'export', 'none')),
    inclusive      boolean NOT NULL,
    net            bigint NOT NULL,
    tax            bigint NOT NULL,
    reason         text,
    PRIMARY KEY (customer_id, credit_note_id, category, rate, treatment, inclusive),
    FOREIGN KEY (customer_id, credit_note_id) REFERENCES credit_note DEFERRABLE INITIALLY DEFERRED
);
