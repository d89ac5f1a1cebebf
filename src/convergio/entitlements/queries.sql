-- name: copy_reservations!
-- Load new reservations.
COPY reservation
    (customer_id, reservation_id, meter_id, start_at, quantity, state, made_at, expires_at)
FROM STDIN;

-- name: insert_reservations!
-- Store a few new reservations; one that is there fails them all.
INSERT INTO reservation
    (customer_id, reservation_id, meter_id, start_at, quantity, made_at, expires_at, state)
VALUES (%s::uuid, %s::uuid, %s::integer, %s::timestamptz, %s::numeric, %s::timestamptz,
    %s::timestamptz, 'open');

-- name: find_reservations
-- Reservations by customer and id, as they stand.
SELECT r.customer_id, r.reservation_id, r.meter_id, r.start_at, r.quantity, r.state, r.made_at,
    r.expires_at, r.settled_at, r.settled, m.aggregation <> ALL ('{max,last}') AS adds
FROM reservation r
JOIN meter m ON m.meter_id = r.meter_id
WHERE (r.customer_id, r.reservation_id) IN (
    SELECT w.customer_id, w.reservation_id
    FROM unnest(:customer_ids::uuid[], :reservation_ids::uuid[])
        AS w (customer_id, reservation_id));

-- name: look_reservation_up
-- One reservation as it stands.
SELECT customer_id, reservation_id, meter_id, start_at, quantity, state, made_at, expires_at,
    settled_at, settled
FROM reservation
WHERE customer_id = :customer_id::uuid AND reservation_id = :reservation_id::uuid;

-- name: lock_reservation
-- Locks: one reservation.
SELECT r.customer_id, r.reservation_id, r.meter_id, r.start_at, r.quantity, r.state, r.made_at,
    r.expires_at, r.settled_at, r.settled, m.aggregation <> ALL ('{max,last}') AS adds
FROM reservation r
JOIN meter m ON m.meter_id = r.meter_id
WHERE r.customer_id = :customer_id AND r.reservation_id = :reservation_id
FOR UPDATE OF r;

-- name: settle_reservation!
-- Write what became of a reservation.
UPDATE reservation
SET state = :state, settled_at = :settled_at, settled = :settled
WHERE customer_id = :customer_id AND reservation_id = :reservation_id;

-- name: lock_due_reservations
-- Locks: reservations whose time is over; what another sweeper holds is passed over.
SELECT r.customer_id, r.reservation_id, r.meter_id, r.start_at, r.quantity, r.state, r.made_at,
    r.expires_at, r.settled_at, r.settled, m.aggregation <> ALL ('{max,last}') AS adds
FROM reservation r
JOIN meter m ON m.meter_id = r.meter_id
WHERE r.state = 'open' AND r.expires_at <= :now
ORDER BY r.customer_id, r.reservation_id
LIMIT :size
FOR UPDATE OF r SKIP LOCKED;

-- name: lock_stale_reservations
-- Locks: a customer's reservations of one window whose time is over. What a sweeper or a settler
-- holds is passed over: it is about to be given back or counted by whoever holds it.
SELECT r.customer_id, r.reservation_id, r.meter_id, r.start_at, r.quantity, r.state, r.made_at,
    r.expires_at, r.settled_at, r.settled, m.aggregation <> ALL ('{max,last}') AS adds
FROM reservation r
JOIN meter m ON m.meter_id = r.meter_id
WHERE r.customer_id = :customer_id AND r.meter_id = :meter_id AND r.state = 'open'
    AND r.expires_at <= :now AND r.start_at = :start_at
ORDER BY r.reservation_id
FOR UPDATE OF r SKIP LOCKED;

-- name: stale_reserved
-- What customers' windows of an instant still hold for reservations whose time is over, by meter.
SELECT r.customer_id, r.meter_id, sum(r.quantity) AS quantity
FROM reservation r
JOIN meter m ON m.meter_id = r.meter_id AND m.aggregation <> ALL ('{max,last}')
JOIN usage_total t ON t.customer_id = r.customer_id AND t.meter_id = r.meter_id
    AND t.dimensions = '' AND t.start_at = r.start_at
WHERE r.customer_id = ANY(:customer_ids::uuid[]) AND r.state = 'open' AND r.expires_at <= :now
    AND t.start_at <= :now AND :now < t.end_at
GROUP BY r.customer_id, r.meter_id;

-- name: asked_levels
-- The highest level that open reservations ask for in customers' windows of an instant, by meter.
SELECT r.customer_id, r.meter_id, max(r.quantity) AS quantity
FROM reservation r
JOIN usage_total t ON t.customer_id = r.customer_id AND t.meter_id = r.meter_id
    AND t.dimensions = '' AND t.start_at = r.start_at
WHERE r.customer_id = ANY(:customer_ids::uuid[]) AND r.meter_id = ANY(:meter_ids::integer[])
    AND r.state = 'open' AND r.expires_at > :now AND t.start_at <= :now AND :now < t.end_at
GROUP BY r.customer_id, r.meter_id;

-- name: insert_lease!
-- Store a new lease, unless its id is a lease already.
INSERT INTO lease (customer_id, lease_id, meter_id, start_at, end_at, granted, used, sequence,
    state, made_at, expires_at)
VALUES (:customer_id, :lease_id, :meter_id, :start_at, :end_at, :granted, :used, :sequence,
    :state, :made_at, :expires_at)
ON CONFLICT (customer_id, lease_id) DO NOTHING;

-- name: find_lease
-- One lease.
SELECT customer_id, lease_id, meter_id, start_at, end_at, granted, used, sequence, state, made_at,
    expires_at, settled_at
FROM lease
WHERE customer_id = :customer_id AND lease_id = :lease_id;

-- name: lock_lease
-- Locks: one lease.
SELECT customer_id, lease_id, meter_id, start_at, end_at, granted, used, sequence, state, made_at,
    expires_at, settled_at
FROM lease
WHERE customer_id = :customer_id AND lease_id = :lease_id
FOR UPDATE;

-- name: save_lease!
-- Store what became of leases.
UPDATE lease
SET granted = :granted, used = :used, sequence = :sequence, state = :state,
    expires_at = :expires_at, settled_at = :settled_at
WHERE customer_id = :customer_id AND lease_id = :lease_id;

-- name: lock_ended_leases
-- Locks: open leases whose window has ended; what another sweeper holds is passed over.
SELECT customer_id, lease_id, meter_id, start_at, end_at, granted, used, sequence, state, made_at,
    expires_at, settled_at
FROM lease
WHERE state = 'open' AND end_at <= :now
ORDER BY customer_id, lease_id
LIMIT :size
FOR UPDATE SKIP LOCKED;

-- name: page_open_leases
-- The next open leases, of all customers or of one; expired ones only where it is asked for.
SELECT customer_id, lease_id, meter_id, start_at, end_at, granted, used, sequence, state, made_at,
    expires_at, settled_at
FROM lease
WHERE state = 'open' AND (customer_id, lease_id) > (:after_customer::uuid, :after_lease::uuid)
    AND (:customer_id::uuid IS NULL OR customer_id = :customer_id::uuid)
    AND (:expired_by::timestamptz IS NULL OR expires_at <= :expired_by::timestamptz)
ORDER BY customer_id, lease_id
LIMIT :size;

-- name: lock_spend_caps
-- Locks: the caps of these customers, so that no two decisions spend the same rest.
SELECT customer_id, amount, currency, updated_at
FROM spend_cap
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id
FOR UPDATE;

-- name: lock_capped
-- Locks: the caps of these customers; says only who has one.
SELECT customer_id
FROM spend_cap
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id
FOR UPDATE;

-- name: find_spend_cap
-- One customer's cap.
SELECT customer_id, amount, currency, updated_at FROM spend_cap WHERE customer_id = :customer_id;

-- name: save_spend_cap!
-- Set a customer's cap.
INSERT INTO spend_cap AS c (customer_id, amount, currency, updated_at)
VALUES (:customer_id, :amount, :currency, :updated_at)
ON CONFLICT (customer_id) DO UPDATE
    SET amount = excluded.amount, currency = excluded.currency, updated_at = excluded.updated_at;

-- name: delete_spend_cap!
-- Take a customer's cap away.
DELETE FROM spend_cap WHERE customer_id = :customer_id;

-- name: differing_reserved
-- Windows whose reserved quantity is not what their open reservations and open leases hold. Of a
-- level nothing is held.
SELECT t.customer_id, t.meter_id, t.start_at, t.reserved AS found,
    coalesce(r.quantity, 0) + coalesce(l.quantity, 0) AS expected
FROM usage_total t
LEFT JOIN LATERAL (
    SELECT sum(o.quantity) AS quantity
    FROM reservation o
    JOIN meter m ON m.meter_id = o.meter_id AND m.aggregation <> ALL ('{max,last}')
    WHERE o.customer_id = t.customer_id AND o.meter_id = t.meter_id AND o.state = 'open'
        AND o.start_at = t.start_at
) r ON true
LEFT JOIN LATERAL (
    SELECT sum(GREATEST(o.granted - o.used, 0)) AS quantity
    FROM lease o
    WHERE o.customer_id = t.customer_id AND o.meter_id = t.meter_id AND o.state = 'open'
        AND o.start_at = t.start_at
) l ON true
WHERE t.dimensions = ''
    AND t.reserved <> coalesce(r.quantity, 0) + coalesce(l.quantity, 0)
LIMIT 20;

-- name: insert_grant!
-- Store a grant, unless its key is taken.
INSERT INTO credit_grant (customer_id, grant_id, key, meter_id, currency, category, quantity,
    amount, priority, starts_at, expires_at, created_at, note)
VALUES (:customer_id, :grant_id, :key, :meter_id, :currency, :category, :quantity, :amount,
    :priority, :starts_at, :expires_at, :created_at, :note)
ON CONFLICT (customer_id, key) DO NOTHING;

-- name: find_grant_by_key
-- One grant by the seller's name of it.
SELECT customer_id, grant_id, key, meter_id, currency, category, quantity, amount, priority,
    starts_at, expires_at, created_at, voided_at, note
FROM credit_grant
WHERE customer_id = :customer_id AND key = :key;

-- name: lock_grant
-- Locks: one grant.
SELECT customer_id, grant_id, key, meter_id, currency, category, quantity, amount, priority,
    starts_at, expires_at, created_at, voided_at, note
FROM credit_grant
WHERE customer_id = :customer_id AND grant_id = :grant_id
FOR UPDATE;

-- name: void_grant!
-- Let a grant end.
UPDATE credit_grant SET voided_at = :voided_at
WHERE customer_id = :customer_id AND grant_id = :grant_id;

-- name: page_grants
-- The next grants of a customer in the order of their creation.
SELECT customer_id, grant_id, key, meter_id, currency, category, quantity, amount, priority,
    starts_at, expires_at, created_at, voided_at, note
FROM credit_grant
WHERE customer_id = :customer_id AND grant_id > :after::uuid
ORDER BY grant_id
LIMIT :size;

-- name: list_money_grants
-- The grants in money of customers, in the order in which they are drawn.
SELECT customer_id, grant_id, key, meter_id, currency, category, quantity, amount, priority,
    starts_at, expires_at, created_at, voided_at, note
FROM credit_grant
WHERE customer_id = ANY(:customer_ids::uuid[]) AND currency IS NOT NULL
ORDER BY customer_id, priority, expires_at NULLS LAST, created_at, grant_id;

-- name: page_unit_grants
-- The next grants in units of all customers, for `verify`.
SELECT customer_id, grant_id, key, meter_id, currency, category, quantity, amount, priority,
    starts_at, expires_at, created_at, voided_at, note
FROM credit_grant
WHERE meter_id IS NOT NULL AND (customer_id, grant_id) > (:after_customer::uuid, :after_grant::uuid)
ORDER BY customer_id, grant_id
LIMIT :size;
