-- name: copy_reservations!
-- Load new reservations.
COPY reservation
    (customer_id, reservation_id, meter_id, start_at, quantity, state, made_at, expires_at)
FROM STDIN;

-- name: lock_reservation
-- Locks: one reservation.
SELECT customer_id, reservation_id, meter_id, start_at, quantity, state, made_at, expires_at,
    settled_at, settled
FROM reservation
WHERE customer_id = :customer_id AND reservation_id = :reservation_id
FOR UPDATE;

-- name: settle_reservation!
-- Write what became of a reservation.
UPDATE reservation
SET state = :state, settled_at = :settled_at, settled = :settled
WHERE customer_id = :customer_id AND reservation_id = :reservation_id;

-- name: lock_due_reservations
-- Locks: reservations whose time is over; what another sweeper holds is passed over.
SELECT customer_id, reservation_id, meter_id, start_at, quantity, state, made_at, expires_at,
    settled_at, settled
FROM reservation
WHERE state = 'open' AND expires_at <= :now
ORDER BY customer_id, reservation_id
LIMIT :size
FOR UPDATE SKIP LOCKED;

-- name: differing_reserved
-- Windows whose reserved quantity is not the sum of their open reservations.
SELECT t.customer_id, t.meter_id, t.start_at, t.reserved AS found,
    coalesce(r.quantity, 0) AS expected
FROM usage_total t
LEFT JOIN LATERAL (
    SELECT sum(o.quantity) AS quantity
    FROM reservation o
    WHERE o.customer_id = t.customer_id AND o.meter_id = t.meter_id AND o.state = 'open'
        AND t.start_at <= o.made_at AND o.made_at < t.end_at
) r ON true
WHERE t.dimensions = '' AND t.reserved <> coalesce(r.quantity, 0)
LIMIT 20;
