-- name: copy_events!
-- Load prepared rows, sorted by key; a duplicate fails the whole COPY.
COPY usage_event
    (customer_id, event_key, type, occurred_at, received_at, properties, source, event_id)
FROM STDIN (FORMAT BINARY);

-- name: insert_new_events
-- Insert the rows of a batch that holds duplicates; the new ones come back.
INSERT INTO usage_event
    (customer_id, event_key, type, occurred_at, received_at, properties, source, event_id)
VALUES (%s::uuid, %s::uuid, %s::text, %s::timestamptz, %s::timestamptz, %s::jsonb, %s::text,
    %s::text)
ON CONFLICT (customer_id, event_key) DO NOTHING
RETURNING customer_id, event_key;

-- name: compare_events
-- Say of events that were already there whether the payload is the same.
SELECT e.customer_id, e.event_key,
    e.type = v.type AND e.properties = v.properties
        AND (v.occurred_at IS NULL OR e.occurred_at = v.occurred_at) AS same
FROM usage_event e
JOIN (VALUES (%s::uuid, %s::uuid, %s::text, %s::timestamptz, %s::jsonb))
    AS v (customer_id, event_key, type, occurred_at, properties)
    ON e.customer_id = v.customer_id AND e.event_key = v.event_key;

-- name: add_to_totals
-- Add to windows, where the cached version still holds; fewer rows back means a stale cache.
INSERT INTO usage_total AS t (customer_id, meter_id, start_at, end_at, version, used)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::timestamptz, %s::bigint, %s::numeric)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET used = t.used + excluded.used
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
RETURNING 1;

-- name: find_windows
-- The windows of customers that touch a stretch of time, with end after start.
SELECT customer_id, meter_id, start_at, end_at, version, used, reserved, quota_limit, included
FROM usage_total
WHERE customer_id = ANY(:customer_ids::uuid[]) AND dimensions = ''
    AND end_at > :since::timestamptz AND start_at <= :until::timestamptz
    AND start_at < end_at;

-- name: find_all_windows
-- Every window of a customer, also the emptied ones.
SELECT customer_id, meter_id, start_at, end_at, version, used, reserved, quota_limit, included
FROM usage_total
WHERE customer_id = :customer_id AND dimensions = ''
ORDER BY meter_id, start_at
FOR UPDATE;

-- name: open_windows!
-- Open windows; one that somebody else opened meanwhile stays as it is, an emptied one is filled.
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, end_at, version, used, quota_limit, included)
VALUES (:customer_id, :meter_id, :start_at, :end_at, :version, :used, :quota_limit, :included)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET end_at = excluded.end_at, version = excluded.version, used = excluded.used,
        quota_limit = excluded.quota_limit, included = excluded.included
    WHERE t.start_at = t.end_at;

-- name: reshape_window!
-- Give a window another end and another count, and so another version.
UPDATE usage_total
SET end_at = :end_at, version = :version, used = :used,
    quota_limit = :quota_limit, included = :included
WHERE customer_id = :customer_id AND meter_id = :meter_id AND start_at = :start_at
    AND dimensions = '';

-- name: add_default_schedules!
-- Customers without a schedule get calendar months in UTC, so that there is a row to lock.
INSERT INTO usage_schedule (customer_id, version, segments)
VALUES (:customer_id, 1, :segments::jsonb)
ON CONFLICT (customer_id) DO NOTHING;

-- name: share_schedules
-- Locks: the schedules, so that they do not change while windows open.
SELECT customer_id, version, segments
FROM usage_schedule
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id
FOR SHARE;

-- name: lock_schedules
-- Locks: the schedules, to change them.
SELECT customer_id, version, segments
FROM usage_schedule
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id
FOR UPDATE;

-- name: save_schedule!
-- Store a changed schedule.
UPDATE usage_schedule SET version = :version, segments = :segments::jsonb
WHERE customer_id = :customer_id;

-- name: customers_with_windows
-- Which of these customers have a window already.
SELECT DISTINCT customer_id FROM usage_total WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: events_since
-- A customer's events from an instant on, for a recount.
SELECT customer_id, event_key, type, occurred_at, properties
FROM usage_event
WHERE customer_id = :customer_id AND occurred_at >= :since::timestamptz;

-- name: usage_by_bucket
-- Usage of a meter in buckets of local time, from the events themselves.
SELECT date_trunc(:unit, u.occurred_at, :time_zone) AS start,
    sum(u.quantity) AS quantity, count(*) AS events
FROM metered_usage u
WHERE u.meter_id = :meter_id
    AND (:customer_id::uuid IS NULL OR u.customer_id = :customer_id::uuid)
    AND (:since::timestamptz IS NULL OR u.occurred_at >= :since::timestamptz)
    AND (:until::timestamptz IS NULL OR u.occurred_at < :until::timestamptz)
GROUP BY 1
ORDER BY 1;

-- name: differing_windows
-- Windows whose count is not what their events add up to, and usage that no window holds.
SELECT counted.customer_id, counted.meter_id, counted.start_at,
    coalesce(t.used, 0) AS used, counted.quantity AS expected
FROM (
    SELECT u.customer_id, u.meter_id, w.start_at, sum(u.quantity) AS quantity
    FROM metered_usage u
    LEFT JOIN usage_total w ON w.customer_id = u.customer_id AND w.meter_id = u.meter_id
        AND w.dimensions = '' AND w.start_at <= u.occurred_at AND u.occurred_at < w.end_at
    GROUP BY 1, 2, 3
) counted
LEFT JOIN usage_total t ON t.customer_id = counted.customer_id AND t.meter_id = counted.meter_id
    AND t.start_at = counted.start_at AND t.dimensions = ''
WHERE t.used IS DISTINCT FROM counted.quantity AND counted.quantity > 0
UNION ALL
SELECT t.customer_id, t.meter_id, t.start_at, t.used, 0
FROM usage_total t
WHERE t.dimensions = '' AND t.used > 0 AND NOT EXISTS (
    SELECT FROM metered_usage u
    WHERE u.customer_id = t.customer_id AND u.meter_id = t.meter_id
        AND t.start_at <= u.occurred_at AND u.occurred_at < t.end_at)
LIMIT 20;

-- name: reserve
-- Hold quantities of windows, where the limit allows it and the cached version still holds.
INSERT INTO usage_total AS t (customer_id, meter_id, start_at, end_at, version, used, reserved)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::timestamptz, %s::bigint, 0, %s::numeric)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET reserved = t.reserved + excluded.reserved
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
        AND (t.quota_limit IS NULL OR t.used + t.reserved + excluded.reserved <= t.quota_limit)
RETURNING customer_id, meter_id, start_at;

-- name: lock_windows
-- Locks: these windows, to decide one by one when not all of what was asked fits.
SELECT t.customer_id, t.meter_id, t.start_at, t.end_at, t.version, t.used, t.reserved,
    t.quota_limit, t.included
FROM usage_total t
WHERE (t.customer_id, t.meter_id, t.start_at, t.dimensions) IN (
    SELECT w.customer_id, w.meter_id, w.start_at, ''
    FROM unnest(:customer_ids::uuid[], :meter_ids::integer[], :starts::timestamptz[])
        AS w (customer_id, meter_id, start_at))
ORDER BY t.customer_id, t.meter_id, t.start_at
FOR UPDATE;

-- name: unreserve!
-- Give back what was held of the window that holds an instant.
UPDATE usage_total SET reserved = reserved - :quantity
WHERE customer_id = :customer_id AND meter_id = :meter_id AND dimensions = ''
    AND start_at <= :made_at AND :made_at < end_at;

-- name: meter_totals
-- All usage of a customer's windows that end in a stretch of time, for billing.
SELECT customer_id, meter_id, start_at, end_at, used
FROM usage_total
WHERE customer_id = ANY(:customer_ids::uuid[]) AND dimensions = ''
    AND start_at >= :since::timestamptz AND end_at <= :until::timestamptz AND used > 0;
