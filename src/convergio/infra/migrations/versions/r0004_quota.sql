-- Leases, spend caps, and the index by which a full window finds its own stale reservations.

-- A slice of a window's quota that a node decides on alone. What is granted and not yet reported
-- as used stays in usage_total.reserved while the lease is open, also after it expired.
CREATE TABLE lease (
    customer_id uuid NOT NULL,
    lease_id    uuid NOT NULL,
    meter_id    integer NOT NULL,
    start_at    timestamptz NOT NULL,
    end_at      timestamptz NOT NULL, -- where the window ended when the lease was made
    granted     numeric(38, 9) NOT NULL CHECK (granted > 0 AND granted < 'NaN'),
    used        numeric(38, 9) NOT NULL CHECK (used >= 0 AND used < 'NaN'),
    sequence    bigint NOT NULL CHECK (sequence >= 0), -- of the last report that was counted
    state       text COLLATE "C" NOT NULL CHECK (state IN ('open', 'settled', 'lost', 'lapsed')),
    made_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    settled_at  timestamptz,
    PRIMARY KEY (customer_id, lease_id),
    CHECK (start_at <= made_at AND made_at < end_at),
    CHECK (made_at < expires_at AND expires_at <= end_at),
    CHECK ((state = 'open') = (settled_at IS NULL))
);
CREATE INDEX lease_open ON lease (customer_id, meter_id, end_at) WHERE state = 'open';
CREATE INDEX lease_ended ON lease (end_at) WHERE state = 'open';

-- What a customer's overage of the current windows may come to; its row is the lock of that sum.
CREATE TABLE spend_cap (
    customer_id uuid PRIMARY KEY REFERENCES customer,
    amount      bigint NOT NULL CHECK (amount >= 0),
    currency    text COLLATE "C" NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    updated_at  timestamptz NOT NULL
);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX reservation_open ON reservation (customer_id, meter_id, expires_at)
    WHERE state = 'open';
