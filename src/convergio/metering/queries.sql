-- name: copy_events!
-- Load prepared rows, sorted by key; a duplicate fails the whole COPY.
COPY usage_event
    (customer_id, event_key, type, occurred_at, received_at, properties, source, event_id)
FROM STDIN (FORMAT BINARY);

-- name: insert_events!
-- Insert a few prepared rows, sorted by key; a duplicate fails them all.
INSERT INTO usage_event
    (customer_id, event_key, type, occurred_at, received_at, properties, source, event_id)
VALUES (%s::uuid, %s::uuid, %s::text, %s::timestamptz, %s::timestamptz, %s::jsonb, %s::text,
    %s::text);

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
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, dimensions, end_at, version, used)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::timestamptz, %s::bigint, %s::numeric)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET used = t.used + excluded.used
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
RETURNING customer_id, meter_id, start_at, dimensions, used;

-- name: raise_totals
-- Raise windows of max meters, guarded as above.
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, dimensions, end_at, version, used)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::timestamptz, %s::bigint, %s::numeric)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET used = greatest(t.used, excluded.used)
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
RETURNING customer_id, meter_id, start_at, dimensions, used;

-- name: set_totals
-- Set windows of last meters where the event is newer than the one they show, guarded as above.
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, dimensions, end_at, version, used, last_at, last_key)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::timestamptz, %s::bigint, %s::numeric,
    %s::timestamptz, %s::uuid)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET used = CASE WHEN t.last_at IS NULL
            OR (excluded.last_at, excluded.last_key) > (t.last_at, t.last_key)
            THEN excluded.used ELSE t.used END,
        last_key = CASE WHEN t.last_at IS NULL
            OR (excluded.last_at, excluded.last_key) > (t.last_at, t.last_key)
            THEN excluded.last_key ELSE t.last_key END,
        last_at = greatest(t.last_at, excluded.last_at)
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
RETURNING customer_id, meter_id, start_at, dimensions, used;

-- name: add_unique_values
-- Remember the values of unique_count meters; those that are new come back.
INSERT INTO usage_unique (customer_id, meter_id, start_at, dimensions, value_hash)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::uuid)
ON CONFLICT DO NOTHING
RETURNING customer_id, meter_id, start_at, dimensions;

-- name: raise_alerts
-- Note alerts; those that nobody noted before come back.
INSERT INTO usage_alert (customer_id, meter_id, start_at, kind, raised_at)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::timestamptz)
ON CONFLICT DO NOTHING
RETURNING customer_id, meter_id, start_at, kind;

-- name: find_windows
-- The windows of customers that touch a stretch of time, and those of their groups that are named.
SELECT customer_id, meter_id, start_at, end_at, version, used, reserved, quota_limit, included,
    dimensions, alerts, period_at, earlier, base, free, credit
FROM usage_total
WHERE customer_id = ANY(:customer_ids::uuid[]) AND dimensions = ANY(:groups::text[])
    AND end_at > :since::timestamptz AND start_at <= :until::timestamptz
    AND start_at < end_at;

-- name: find_all_windows
-- Every window of a customer, also the emptied ones.
SELECT customer_id, meter_id, start_at, end_at, version, used, reserved, quota_limit, included,
    dimensions, alerts, period_at, earlier, base, free, credit
FROM usage_total
WHERE customer_id = :customer_id AND dimensions = ''
ORDER BY meter_id, start_at
FOR UPDATE;

-- name: open_windows!
-- Open windows; one that somebody else opened meanwhile stays as it is, an emptied one is filled.
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, dimensions, end_at, version, used, quota_limit, included,
     alerts, period_at, earlier, base, free, credit)
VALUES (:customer_id, :meter_id, :start_at, :dimensions, :end_at, :version, :used, :quota_limit,
    :included, :alerts::integer[], :period_at, :earlier, :base, :free, :credit)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET end_at = excluded.end_at, version = excluded.version, used = excluded.used,
        quota_limit = excluded.quota_limit, included = excluded.included, alerts = excluded.alerts,
        period_at = excluded.period_at, earlier = excluded.earlier, base = excluded.base,
        free = excluded.free, credit = excluded.credit
    WHERE t.start_at = t.end_at;

-- name: reshape_window!
-- Give a window another end and another count, and so another version.
UPDATE usage_total
SET end_at = :end_at, version = :version, used = :used,
    quota_limit = :quota_limit, included = :included, alerts = :alerts::integer[],
    period_at = :period_at, earlier = :earlier, base = :base, free = :free, credit = :credit
WHERE customer_id = :customer_id AND meter_id = :meter_id AND start_at = :start_at
    AND dimensions = '';

-- name: add_default_schedules!
-- Customers without a schedule get calendar months in UTC, so that there is a row to lock.
INSERT INTO usage_schedule (customer_id, version, segments)
VALUES (:customer_id, 1, :segments::jsonb)
ON CONFLICT (customer_id) DO NOTHING;

-- name: lock_schedules
-- Locks: the schedules, to change them.
SELECT customer_id, version, segments, credits
FROM usage_schedule
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id
FOR UPDATE;

-- name: save_schedule!
-- Store a changed schedule.
UPDATE usage_schedule
SET version = :version, segments = :segments::jsonb, credits = :credits::jsonb
WHERE customer_id = :customer_id;

-- name: customers_with_windows
-- Which of these customers have a window already.
SELECT DISTINCT customer_id FROM usage_total WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: events_since
-- A customer's events from an instant on, as they count now.
SELECT e.customer_id, e.event_key, e.type, e.occurred_at,
    coalesce(c.properties, e.properties) AS properties
FROM usage_event e
LEFT JOIN usage_correction c ON c.customer_id = e.customer_id AND c.event_key = e.event_key
WHERE e.customer_id = :customer_id AND e.occurred_at >= :since::timestamptz
    AND c.kind IS DISTINCT FROM 'void';

-- name: count_groups
-- How many groups windows have.
SELECT t.customer_id, t.meter_id, t.start_at, count(*) AS groups
FROM usage_total t
WHERE (t.customer_id, t.meter_id, t.start_at) IN (
    SELECT w.customer_id, w.meter_id, w.start_at
    FROM unnest(:customer_ids::uuid[], :meter_ids::integer[], :starts::timestamptz[])
        AS w (customer_id, meter_id, start_at))
    AND t.dimensions <> ''
GROUP BY 1, 2, 3;

-- name: drop_groups!
-- Forget the groups of a customer's windows, before they are counted again.
DELETE FROM usage_total
WHERE customer_id = :customer_id AND dimensions <> '' AND start_at >= :since::timestamptz
    AND start_at < :until::timestamptz
    AND (:meter_id::integer IS NULL OR meter_id = :meter_id::integer);

-- name: drop_unique_values!
-- Forget the distinct values of a customer's windows, before they are collected again.
DELETE FROM usage_unique
WHERE customer_id = :customer_id AND start_at >= :since::timestamptz
    AND start_at < :until::timestamptz
    AND (:meter_id::integer IS NULL OR meter_id = :meter_id::integer);

-- name: recount_windows!
-- Count a customer's windows again from the events, whatever the aggregation.
UPDATE usage_total t
SET used = counted.quantity, last_at = counted.last_at, last_key = counted.last_key
FROM (
    SELECT w.meter_id, w.start_at,
        coalesce(CASE m.aggregation
            WHEN 'max' THEN max(u.quantity)
            WHEN 'unique_count' THEN count(DISTINCT u.item)
            WHEN 'last' THEN
                (array_agg(u.quantity ORDER BY u.occurred_at DESC, u.event_key DESC))[1]
            ELSE sum(u.quantity) END, 0) AS quantity,
        CASE WHEN m.aggregation = 'last' THEN max(u.occurred_at) END AS last_at,
        CASE WHEN m.aggregation = 'last' THEN
            (array_agg(u.event_key ORDER BY u.occurred_at DESC, u.event_key DESC))[1]
            END AS last_key
    FROM usage_total w
    JOIN meter m ON m.meter_id = w.meter_id
    LEFT JOIN metered_usage u ON u.customer_id = :customer_id AND u.meter_id = w.meter_id
        AND w.start_at <= u.occurred_at AND u.occurred_at < w.end_at
    WHERE w.customer_id = :customer_id AND w.dimensions = ''
        AND w.start_at >= :since::timestamptz AND w.start_at < :until::timestamptz
    AND (:meter_id::integer IS NULL OR w.meter_id = :meter_id::integer)
    GROUP BY w.meter_id, w.start_at, m.aggregation
) counted
WHERE t.customer_id = :customer_id AND t.dimensions = '' AND t.meter_id = counted.meter_id
    AND t.start_at = counted.start_at;

-- name: recount_groups!
-- Make the groups of a customer's windows again from the events.
INSERT INTO usage_total
    (customer_id, meter_id, start_at, dimensions, end_at, version, used, last_at, last_key)
SELECT w.customer_id, w.meter_id, w.start_at, u.dimensions, w.end_at, w.version,
    CASE m.aggregation
        WHEN 'max' THEN max(u.quantity)
        WHEN 'unique_count' THEN count(DISTINCT u.item)
        WHEN 'last' THEN (array_agg(u.quantity ORDER BY u.occurred_at DESC, u.event_key DESC))[1]
        ELSE sum(u.quantity) END,
    CASE WHEN m.aggregation = 'last' THEN max(u.occurred_at) END,
    CASE WHEN m.aggregation = 'last' THEN
        (array_agg(u.event_key ORDER BY u.occurred_at DESC, u.event_key DESC))[1] END
FROM usage_total w
JOIN meter m ON m.meter_id = w.meter_id AND m.group_by <> '{}'
JOIN metered_usage u ON u.customer_id = :customer_id AND u.meter_id = w.meter_id
    AND w.start_at <= u.occurred_at AND u.occurred_at < w.end_at
WHERE w.customer_id = :customer_id AND w.dimensions = ''
    AND w.start_at >= :since::timestamptz AND w.start_at < :until::timestamptz
    AND (:meter_id::integer IS NULL OR w.meter_id = :meter_id::integer)
GROUP BY w.customer_id, w.meter_id, w.start_at, u.dimensions, w.end_at, w.version, m.aggregation;

-- name: recount_unique_values!
-- Collect the distinct values of a customer's windows again from the events.
INSERT INTO usage_unique (customer_id, meter_id, start_at, dimensions, value_hash)
SELECT DISTINCT w.customer_id, w.meter_id, w.start_at, d.dimensions,
    encode(substring(sha256(convert_to(u.item, 'UTF8')) FOR 16), 'hex')::uuid
FROM usage_total w
JOIN meter m ON m.meter_id = w.meter_id AND m.aggregation = 'unique_count'
JOIN metered_usage u ON u.customer_id = :customer_id AND u.meter_id = w.meter_id
    AND w.start_at <= u.occurred_at AND u.occurred_at < w.end_at
CROSS JOIN LATERAL (SELECT '' AS dimensions UNION SELECT u.dimensions) d
WHERE w.customer_id = :customer_id AND w.dimensions = ''
    AND w.start_at >= :since::timestamptz AND w.start_at < :until::timestamptz
    AND (:meter_id::integer IS NULL OR w.meter_id = :meter_id::integer);

-- name: lock_event
-- Locks: one event, to correct it.
SELECT customer_id, event_key, type, occurred_at, properties
FROM usage_event
WHERE customer_id = :customer_id AND event_key = :event_key
FOR UPDATE;

-- name: find_correction
-- What an event counts as since it was corrected.
SELECT customer_id, event_key, kind, properties, corrected_at, correction_key
FROM usage_correction
WHERE customer_id = :customer_id AND event_key = :event_key;

-- name: save_correction!
-- Let an event count as this from now on.
INSERT INTO usage_correction
    (customer_id, event_key, kind, properties, corrected_at, correction_key)
VALUES (:customer_id, :event_key, :kind, :properties::jsonb, :corrected_at, :correction_key)
ON CONFLICT (customer_id, event_key) DO UPDATE
    SET kind = excluded.kind, properties = excluded.properties,
        corrected_at = excluded.corrected_at, correction_key = excluded.correction_key;

-- name: fill_tombstone!
-- Put the event that arrived late in the place that its correction kept for it.
UPDATE usage_event
SET type = :type, occurred_at = :occurred_at, received_at = :received_at,
    properties = :properties::jsonb, source = :source, event_id = :event_id
WHERE customer_id = :customer_id AND event_key = :event_key AND type = 'convergio.tombstone';

-- name: usage_by_bucket
-- Usage of a meter in buckets of local time, from the events themselves, a page at a time.
SELECT b.start, b.dimensions, b.quantity, b.events
FROM (
    SELECT date_trunc(:unit, u.occurred_at, :time_zone) AS start,
        CASE WHEN :by_group THEN u.dimensions ELSE '' END AS dimensions,
        CASE :aggregation::text
            WHEN 'max' THEN max(u.quantity)
            WHEN 'unique_count' THEN count(DISTINCT u.item)
            WHEN 'last' THEN
                (array_agg(u.quantity ORDER BY u.occurred_at DESC, u.event_key DESC))[1]
            ELSE sum(u.quantity) END AS quantity,
        count(*) AS events
    FROM metered_usage u
    WHERE u.meter_id = :meter_id
        AND (:customer_id::uuid IS NULL OR u.customer_id = :customer_id::uuid)
        AND (:since::timestamptz IS NULL OR u.occurred_at >= :since::timestamptz)
        AND (:until::timestamptz IS NULL OR u.occurred_at < :until::timestamptz)
    GROUP BY 1, 2
) b
WHERE :after_start::timestamptz IS NULL
    OR (b.start, b.dimensions) > (:after_start::timestamptz, :after_dimensions::text)
ORDER BY b.start, b.dimensions
LIMIT :size;

-- name: differing_windows
-- Windows and groups whose count is not what their events say, and usage that no window holds; of
-- windows that begin before gone_before the events are archived and deleted.
WITH counted AS (
    SELECT u.customer_id, u.meter_id, w.start_at, d.dimensions,
        CASE m.aggregation
            WHEN 'max' THEN max(u.quantity)
            WHEN 'unique_count' THEN count(DISTINCT u.item)
            WHEN 'last' THEN
                (array_agg(u.quantity ORDER BY u.occurred_at DESC, u.event_key DESC))[1]
            ELSE sum(u.quantity) END AS quantity
    FROM metered_usage u
    JOIN meter m ON m.meter_id = u.meter_id
    CROSS JOIN LATERAL (SELECT '' AS dimensions UNION SELECT u.dimensions) d
    LEFT JOIN usage_total w ON w.customer_id = u.customer_id AND w.meter_id = u.meter_id
        AND w.dimensions = '' AND w.start_at <= u.occurred_at AND u.occurred_at < w.end_at
    WHERE coalesce(w.start_at, u.occurred_at) >= :gone_before::timestamptz
    GROUP BY u.customer_id, u.meter_id, w.start_at, d.dimensions, m.aggregation
)
SELECT coalesce(c.customer_id, t.customer_id) AS customer_id,
    coalesce(c.meter_id, t.meter_id) AS meter_id,
    coalesce(c.start_at, t.start_at) AS start_at,
    coalesce(t.used, 0) AS used, coalesce(c.quantity, 0) AS expected
FROM counted c
FULL JOIN usage_total t ON t.customer_id = c.customer_id AND t.meter_id = c.meter_id
    AND t.start_at = c.start_at AND t.dimensions = c.dimensions
WHERE coalesce(t.used, 0) <> coalesce(c.quantity, 0)
    AND coalesce(c.start_at, t.start_at, :gone_before::timestamptz) >= :gone_before::timestamptz
LIMIT 20;

-- name: reserve
-- Hold quantities of windows, where the limit allows it and the cached version still holds.
INSERT INTO usage_total AS t
    (customer_id, meter_id, start_at, dimensions, end_at, version, used, reserved)
VALUES (%s::uuid, %s::integer, %s::timestamptz, %s::text, %s::timestamptz, %s::bigint, 0,
    %s::numeric)
ON CONFLICT (customer_id, meter_id, start_at, dimensions) DO UPDATE
    SET reserved = t.reserved + excluded.reserved
    WHERE t.version = excluded.version AND t.end_at = excluded.end_at
        AND (t.quota_limit IS NULL OR t.used + t.reserved + excluded.reserved <= t.quota_limit)
RETURNING customer_id, meter_id, start_at, dimensions;

-- name: lock_windows
-- Locks: these windows, to decide one by one when not all of what was asked fits.
SELECT t.customer_id, t.meter_id, t.start_at, t.end_at, t.version, t.used, t.reserved,
    t.quota_limit, t.included, t.dimensions, t.alerts, t.period_at, t.earlier, t.base, t.free,
    t.credit
FROM usage_total t
WHERE (t.customer_id, t.meter_id, t.start_at, t.dimensions) IN (
    SELECT w.customer_id, w.meter_id, w.start_at, ''
    FROM unnest(:customer_ids::uuid[], :meter_ids::integer[], :starts::timestamptz[])
        AS w (customer_id, meter_id, start_at))
ORDER BY t.customer_id, t.meter_id, t.start_at
FOR UPDATE;

-- name: lock_window_at
-- Locks: a customer's window of a meter that holds an instant.
SELECT customer_id, meter_id, start_at, end_at, version, used, reserved, quota_limit, included,
    dimensions, alerts, period_at, earlier, base, free, credit
FROM usage_total
WHERE customer_id = :customer_id AND meter_id = :meter_id AND dimensions = ''
    AND start_at <= :moment AND :moment < end_at
FOR UPDATE;

-- name: unreserve
-- Give back what was held of a window, also when a plan change has cut it since; say whether later
-- windows depend on it.
UPDATE usage_total SET reserved = reserved - :quantity
WHERE customer_id = :customer_id AND meter_id = :meter_id AND dimensions = ''
    AND start_at = :start_at
RETURNING period_at IS NOT NULL;

-- name: meter_totals
-- All usage of a customer's windows that end in a stretch of time, for billing.
SELECT customer_id, meter_id, start_at, end_at, used
FROM usage_total
WHERE customer_id = ANY(:customer_ids::uuid[]) AND dimensions = ''
    AND start_at >= :since::timestamptz AND end_at <= :until::timestamptz AND used > 0;

-- name: grouped_totals
-- The usage of a customer's groups in windows that end in a stretch of time, for billing.
SELECT customer_id, meter_id, start_at, end_at, dimensions, used
FROM usage_total
WHERE customer_id = ANY(:customer_ids::uuid[]) AND dimensions <> ''
    AND start_at >= :since::timestamptz AND end_at <= :until::timestamptz AND used > 0;

-- archives and retention (archive.py)

-- name: find_retention^
-- From when on events are taken, and until when they were archived and deleted.
SELECT accepts_from, deleted_until, archive_sha256 FROM usage_retention;

-- name: share_retention^
-- Locks: the boundary, shared, so that it does not move while old events come in.
SELECT accepts_from, deleted_until, archive_sha256 FROM usage_retention FOR SHARE;

-- name: hold_boundary
-- Locks: the boundary, shared, and without a write to its row: batches take it by the thousand.
SELECT pg_advisory_xact_lock_shared(hashtextextended('convergio.usage_retention', 0));

-- name: read_boundary
-- From when on events are taken.
SELECT accepts_from FROM usage_retention;

-- name: lock_retention^
-- Locks: the boundary, to move it, once nobody holds it any more.
SELECT accepts_from, deleted_until, archive_sha256
FROM usage_retention
WHERE pg_advisory_xact_lock(hashtextextended('convergio.usage_retention', 0))::text IS NOT NULL
FOR UPDATE;

-- name: save_retention!
-- Store the boundary and how far the month that is going has come.
UPDATE usage_retention
SET accepts_from = :accepts_from, deleted_until = :deleted_until, archive_sha256 = :archive_sha256;

-- name: oldest_event
-- When the oldest event at or after an instant occurred.
SELECT min(occurred_at) FROM usage_event WHERE occurred_at >= :since::timestamptz;

-- name: last_window_end
-- When the last of the windows that touch a stretch of time ends.
SELECT max(end_at) FROM usage_total
WHERE dimensions = '' AND start_at < :until::timestamptz AND end_at > :since::timestamptz
    AND start_at < end_at;

-- name: count_events
-- How many events occurred in a stretch of time.
SELECT count(*) FROM usage_event
WHERE occurred_at >= :since::timestamptz AND occurred_at < :until::timestamptz;

-- name: stream_events
-- A month for an archive: its events, and the corrections of them whenever they were made. A
-- tombstone is not an event: the correction that left it is, and will leave it again.
SELECT e.customer_id, e.source, e.event_id, e.type, e.occurred_at, e.received_at,
    e.properties::text,
    CASE c.kind WHEN 'void' THEN 'void' WHEN 'amend' THEN c.properties::text ELSE '' END
FROM usage_event e
LEFT JOIN usage_correction c ON c.customer_id = e.customer_id AND c.event_key = e.event_key
WHERE e.type <> 'convergio.tombstone'
    AND (e.occurred_at >= :since::timestamptz AND e.occurred_at < :until::timestamptz
        OR e.type = ANY('{convergio.void,convergio.amend}'::text[]) AND EXISTS (
            SELECT FROM usage_correction made
            JOIN usage_event o ON o.customer_id = made.customer_id AND o.event_key = made.event_key
            WHERE made.customer_id = e.customer_id AND made.correction_key = e.event_key
                AND o.type <> 'convergio.tombstone'
                AND o.occurred_at >= :since::timestamptz AND o.occurred_at < :until::timestamptz))
ORDER BY e.customer_id, e.event_key;

-- name: sum_meters
-- What each meter selects of a stretch of time, as Postgres adds it up.
SELECT m.meter_key, count(u.quantity) AS events, sum(u.quantity) AS quantity
FROM metered_usage u
JOIN meter m ON m.meter_id = u.meter_id
WHERE u.occurred_at >= :since::timestamptz AND u.occurred_at < :until::timestamptz
GROUP BY m.meter_key
HAVING count(u.quantity) > 0
ORDER BY m.meter_key;

-- name: delete_events
-- Delete the next events of a stretch of time in the order of their key.
WITH batch AS (
    SELECT e.customer_id, e.event_key
    FROM usage_event e
    WHERE (e.customer_id, e.event_key) > (:after_customer::uuid, :after_key::uuid)
        AND e.occurred_at >= :since::timestamptz AND e.occurred_at < :until::timestamptz
    ORDER BY e.customer_id, e.event_key
    LIMIT :size
    FOR UPDATE
)
DELETE FROM usage_event e USING batch b
WHERE e.customer_id = b.customer_id AND e.event_key = b.event_key
RETURNING e.customer_id, e.event_key;

-- name: page_metered
-- The next events, in the order of their keys, that a meter counted for a customer in a period:
-- all, or those whose dimension at a place is listed, or is not.
SELECT u.event_key, u.occurred_at, u.quantity, e.source, e.event_id, e.received_at
FROM metered_usage AS u
JOIN usage_event AS e ON e.customer_id = u.customer_id AND e.event_key = u.event_key
WHERE u.customer_id = :customer_id AND u.meter_id = :meter_id
    AND u.occurred_at >= :since::timestamptz AND u.occurred_at < :until::timestamptz
    AND u.event_key > :after::uuid
    AND (:place::integer IS NULL
        OR COALESCE((('[' || u.dimensions || ']')::jsonb ->> :place::integer)
            = ANY(:listed::text[]), false) = :is_listed::boolean)
ORDER BY u.event_key
LIMIT :size;

-- name: usage_marks
-- One number for all usage of a customer in windows that begin before an instant, for each of two:
-- any change of a total there changes it.
SELECT w.place,
    COALESCE(sum(hash_record_extended(
        ROW(t.meter_id, t.start_at, t.end_at, t.dimensions, t.used), 0))
        FILTER (WHERE t.start_at < w.earlier), 0) AS earlier_mark,
    COALESCE(sum(hash_record_extended(
        ROW(t.meter_id, t.start_at, t.end_at, t.dimensions, t.used), 0))
        FILTER (WHERE t.start_at < w.later), 0) AS later_mark
FROM unnest(:places::integer[], :customer_ids::uuid[], :earlier::timestamptz[],
    :later::timestamptz[]) AS w (place, customer_id, earlier, later)
JOIN usage_total AS t
    ON t.customer_id = w.customer_id AND t.start_at < GREATEST(w.earlier, w.later) AND t.used > 0
GROUP BY w.place;

-- windows that share an allowance or credit (windows.py)

-- name: find_schedules
-- The schedules of customers, to read them.
SELECT customer_id, version, segments, credits
FROM usage_schedule
WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: find_credited_schedules
-- The schedules of those customers who have credit in units.
SELECT customer_id, version, segments, credits
FROM usage_schedule
WHERE customer_id = ANY(:customer_ids::uuid[]) AND credits <> '[]';

-- name: find_followed
-- Of these windows the customers and meters that have a later one.
SELECT DISTINCT w.customer_id, w.meter_id
FROM unnest(:customer_ids::uuid[], :meter_ids::integer[], :starts::timestamptz[])
    AS w (customer_id, meter_id, start_at)
JOIN usage_total t ON t.customer_id = w.customer_id AND t.meter_id = w.meter_id
    AND t.dimensions = '' AND t.start_at > w.start_at AND t.start_at < t.end_at;

-- name: lock_later_windows
-- Locks: of customers' meters, the windows from a start on, in the order of their key.
SELECT 1
FROM (VALUES (%s::uuid, %s::integer, %s::timestamptz)) AS w (customer_id, meter_id, start_at)
JOIN usage_total t ON t.customer_id = w.customer_id AND t.meter_id = w.meter_id
    AND t.dimensions = '' AND t.start_at >= w.start_at
ORDER BY t.customer_id, t.meter_id, t.start_at
FOR UPDATE OF t;

-- name: lock_meter_windows
-- Locks: every window of customers' meters, in the order of their key.
SELECT t.customer_id, t.meter_id, t.start_at, t.end_at, t.version, t.used, t.reserved,
    t.quota_limit, t.included, t.dimensions, t.alerts, t.period_at, t.earlier, t.base, t.free,
    t.credit
FROM usage_total t
WHERE (t.customer_id, t.meter_id) IN (
    SELECT w.customer_id, w.meter_id
    FROM unnest(:customer_ids::uuid[], :meter_ids::integer[]) AS w (customer_id, meter_id))
    AND t.dimensions = '' AND t.start_at < t.end_at
ORDER BY t.customer_id, t.meter_id, t.start_at
FOR UPDATE;

-- name: find_meter_windows
-- Every window of customers' meters, in the order of their key.
SELECT t.customer_id, t.meter_id, t.start_at, t.end_at, t.version, t.used, t.reserved,
    t.quota_limit, t.included, t.dimensions, t.alerts, t.period_at, t.earlier, t.base, t.free,
    t.credit
FROM usage_total t
WHERE (t.customer_id, t.meter_id) IN (
    SELECT w.customer_id, w.meter_id
    FROM unnest(:customer_ids::uuid[], :meter_ids::integer[]) AS w (customer_id, meter_id))
    AND t.dimensions = '' AND t.start_at < t.end_at
ORDER BY t.customer_id, t.meter_id, t.start_at;

-- name: save_standing!
-- Store what a window may use since what it depends on has changed.
UPDATE usage_total
SET version = :version, quota_limit = :quota_limit, included = :included,
    alerts = :alerts::integer[], period_at = :period_at, earlier = :earlier, base = :base,
    free = :free, credit = :credit
WHERE customer_id = :customer_id AND meter_id = :meter_id AND start_at = :start_at
    AND dimensions = '';

-- name: page_shared
-- The next customers and meters of whom windows share an allowance or credit, for `verify`.
SELECT DISTINCT t.customer_id, t.meter_id
FROM usage_total t
WHERE t.dimensions = '' AND t.period_at IS NOT NULL
    AND (t.customer_id, t.meter_id) > (:after_customer::uuid, :after_meter::integer)
ORDER BY t.customer_id, t.meter_id
LIMIT :size;
