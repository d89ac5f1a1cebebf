-- name: insert_subscriptions
-- Insert one live subscription a customer; who has one already is left out of what returns.
INSERT INTO subscription (customer_id, subscription_id, plan_key, status, currency, time_zone,
    anchor_at, started_at, created_at, trial_policy, fallback_plan_key, by_calendar)
SELECT n.customer_id, n.subscription_id, :plan_key, :status, n.currency, :time_zone,
    :anchor_at::timestamptz, :started_at::timestamptz, :created_at::timestamptz,
    :trial_policy::text, :fallback_plan_key::text, :by_calendar::boolean
FROM unnest(:customer_ids::uuid[], :subscription_ids::uuid[], :currencies::text[])
    AS n (customer_id, subscription_id, currency)
ON CONFLICT (customer_id) WHERE status <> 'canceled' DO NOTHING
RETURNING customer_id;

-- name: copy_items
-- Load items in bulk.
COPY subscription_item (customer_id, subscription_id, item_id, price_id, quantity, active_from,
    active_until, add_on_key) FROM STDIN;

-- name: copy_periods
-- Load periods in bulk; the table refuses a second one of a number and any overlap.
COPY subscription_period (customer_id, subscription_id, interval, number, start_at, end_at)
    FROM STDIN (FORMAT BINARY);

-- name: ask_live_status
-- The same as list_live_status, to be asked together with others.
SELECT customer_id, status FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[]) AND status <> 'canceled';

-- name: list_live_status
-- The status of each customer's live subscription.
SELECT customer_id, status FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[]) AND status <> 'canceled';

-- name: list_subscriptions
-- Every subscription of these customers, in the order of their ids.
SELECT customer_id, subscription_id, plan_key, status, currency, time_zone, anchor_at, started_at,
    cancel_at, canceled_at, created_at, trial_policy, fallback_plan_key, by_calendar
FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, subscription_id;

-- name: page_subscriptions
-- The next subscriptions in the order of customer and id, of one customer, plan or status.
SELECT customer_id, subscription_id, plan_key, status, currency, time_zone, anchor_at, started_at,
    cancel_at, canceled_at, created_at, trial_policy, fallback_plan_key, by_calendar
FROM subscription
WHERE (customer_id, subscription_id) > (:after_customer_id::uuid, :after_subscription_id::uuid)
    AND (:customer_id::uuid IS NULL OR customer_id = :customer_id)
    AND (:plan_key::text IS NULL OR plan_key = :plan_key)
    AND (:status::text IS NULL OR status = :status)
ORDER BY customer_id, subscription_id
LIMIT :limit;

-- name: lock_live
-- Lock one customer's live subscription.
SELECT customer_id, subscription_id, plan_key, status, currency, time_zone, anchor_at, started_at,
    cancel_at, canceled_at, created_at, trial_policy, fallback_plan_key, by_calendar
FROM subscription
WHERE customer_id = :customer_id AND status <> 'canceled'
FOR UPDATE;

-- name: lock_subscriptions
-- Lock every subscription of these customers in the order of their ids.
SELECT customer_id, subscription_id, plan_key, status, currency, time_zone, anchor_at, started_at,
    cancel_at, canceled_at, created_at, trial_policy, fallback_plan_key, by_calendar
FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, subscription_id
FOR UPDATE;

-- name: hold_subscriptions
-- Lock every subscription of these customers in the order of their ids, whatever stands in it.
SELECT FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, subscription_id
FOR UPDATE;

-- name: lock_closed
-- Lock every subscription of these customers in the order of their ids; up to where each is closed.
SELECT customer_id, subscription_id, plan_key, status, currency, time_zone, anchor_at, started_at,
    cancel_at, canceled_at, created_at, trial_policy, fallback_plan_key, closed_until, closed_mark
FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, subscription_id
FOR UPDATE;

-- name: list_unclosed
-- The periods of these customers that end after the mark of their subscription: the last stored
-- one of each interval is among them.
SELECT p.customer_id, p.subscription_id, p.interval, p.number, p.start_at, p.end_at
FROM subscription AS s
JOIN subscription_period AS p
    ON p.customer_id = s.customer_id AND p.subscription_id = s.subscription_id
        AND p.end_at > COALESCE(s.closed_until, '-infinity')
WHERE s.customer_id = ANY(:customer_ids::uuid[])
ORDER BY p.customer_id, p.subscription_id, p.interval, p.number;

-- name: page_customers
-- The next customers, in order, that ever had a subscription.
SELECT DISTINCT customer_id FROM subscription
WHERE customer_id > :after
ORDER BY customer_id
LIMIT :limit;

-- name: page_starts
-- The first customer of each page of so many, but for the first page.
SELECT customer_id FROM (
    SELECT customer_id, row_number() OVER (ORDER BY customer_id) AS place
    FROM (SELECT DISTINCT customer_id FROM subscription) AS once
) AS numbered
WHERE place > 1 AND place %% :size::integer = 1
ORDER BY customer_id;

-- name: list_customers_in
-- The customers from one up to, not with, another that ever had a subscription.
SELECT DISTINCT customer_id FROM subscription
WHERE customer_id >= :first AND (:until::uuid IS NULL OR customer_id < :until::uuid)
ORDER BY customer_id;

-- name: count_customers
-- How many customers ever had a subscription.
SELECT count(DISTINCT customer_id) FROM subscription;

-- name: list_frontiers
-- Where the stored periods of each live subscription and interval end, where that is not beyond.
SELECT s.customer_id, s.subscription_id, s.anchor_at, s.time_zone, s.cancel_at, p.interval,
    max(p.number) AS number, max(p.end_at) AS end_at
FROM subscription AS s
JOIN subscription_period AS p
    ON p.customer_id = s.customer_id AND p.subscription_id = s.subscription_id
WHERE s.customer_id = ANY(:customer_ids::uuid[]) AND s.status <> 'canceled'
GROUP BY s.customer_id, s.subscription_id, p.interval
HAVING max(p.end_at) <= :until
ORDER BY s.customer_id, s.subscription_id, p.interval;

-- name: find_current_end
-- The latest end among the periods, one of each of some intervals, that hold an instant.
SELECT max(end_at) FROM subscription_period
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
    AND start_at <= :instant AND end_at > :instant AND interval = ANY(:intervals::text[]);

-- name: list_items
-- Every item of these customers.
SELECT customer_id, subscription_id, item_id, price_id, quantity, active_from, active_until,
    credited, end_reason, add_on_key
FROM subscription_item
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, subscription_id, item_id;

-- name: list_periods
-- Every stored period of these customers that has begun, but for those before a floor.
SELECT p.customer_id, p.subscription_id, p.interval, p.number, p.start_at, p.end_at
FROM subscription_period AS p
LEFT JOIN unnest(:subscription_ids::uuid[], :floors::timestamptz[]) AS f (subscription_id, floor)
    ON f.subscription_id = p.subscription_id
WHERE p.customer_id = ANY(:customer_ids::uuid[]) AND p.start_at <= :until
    AND (f.floor IS NULL OR p.start_at >= f.floor)
ORDER BY p.customer_id, p.subscription_id, p.interval, p.number;

-- name: list_marks
-- Up to where each subscription of these customers is closed, and the usage it was closed at.
SELECT customer_id, subscription_id, closed_until, closed_mark
FROM subscription
WHERE customer_id = ANY(:customer_ids::uuid[]) AND closed_until IS NOT NULL
ORDER BY customer_id, subscription_id;

-- name: save_marks!
-- Note up to where subscriptions are closed.
UPDATE subscription AS s SET closed_until = n.closed_until, closed_mark = n.closed_mark
FROM unnest(:customer_ids::uuid[], :subscription_ids::uuid[], :untils::timestamptz[],
    :marks::numeric[]) AS n (customer_id, subscription_id, closed_until, closed_mark)
WHERE s.customer_id = n.customer_id AND s.subscription_id = n.subscription_id;

-- name: reopen!
-- Let the next run look at everything of a customer again.
UPDATE subscription SET closed_until = NULL, closed_mark = NULL
WHERE customer_id = :customer_id AND closed_until IS NOT NULL;

-- name: save_state
-- Store where a subscription stands.
UPDATE subscription
SET status = :status, plan_key = :plan_key, cancel_at = :cancel_at, canceled_at = :canceled_at,
    closed_until = NULL, closed_mark = NULL
WHERE customer_id = :customer_id AND subscription_id = :subscription_id;

-- name: end_items
-- End items that are still active at an instant, all or these, but never before they began; what
-- would be asked once from then on gets the reason, so that it is not.
UPDATE subscription_item
SET active_until = GREATEST(active_from, :ends_at), credited = :credited, end_reason = :reason
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
    AND (active_until IS NULL OR active_until > :ends_at
        OR (active_until = active_from AND active_from >= :ends_at AND end_reason IS NULL))
    AND add_on_key IS DISTINCT FROM '@once' -- a charge of its own, owed also by who leaves
    AND (:item_ids::uuid[] IS NULL OR item_id = ANY(:item_ids::uuid[]));

-- name: list_pending
-- Changes of these customers that take effect by an instant, the earliest first.
SELECT customer_id, subscription_id, change_id, effective_at, plan_key, price_ids, seats, state,
    made_at
FROM subscription_change
WHERE customer_id = ANY(:customer_ids::uuid[]) AND state = ANY('{pending,queued}')
    AND effective_at <= :until
ORDER BY effective_at, customer_id;

-- name: list_changes
-- The changes of one subscription, in the order in which they were made.
SELECT customer_id, subscription_id, change_id, effective_at, plan_key, price_ids, seats, state,
    made_at
FROM subscription_change
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
ORDER BY made_at, change_id;

-- name: insert_change!
-- Keep a change.
INSERT INTO subscription_change (customer_id, subscription_id, change_id, effective_at, plan_key,
    price_ids, seats, state, made_at)
VALUES (:customer_id, :subscription_id, :change_id, :effective_at, :plan_key,
    :price_ids::uuid[], :seats, :state, :made_at);

-- name: settle_pending!
-- Say what became of the change that waits, and of every step of a ramp.
UPDATE subscription_change SET state = :state
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
    AND state = ANY('{pending,queued}');

-- name: settle_change!
-- Say what became of one change.
UPDATE subscription_change SET state = :state
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
    AND change_id = :change_id;

-- name: save_pending_seats!
-- Let the changes that wait end with another number of seats.
UPDATE subscription_change SET seats = :seats
WHERE customer_id = :customer_id AND subscription_id = :subscription_id
    AND state = ANY('{pending,queued}');

-- name: count_changes
-- How many changes of a customer took effect at once since an instant.
SELECT count(*) FROM subscription_change
WHERE customer_id = :customer_id AND state = 'done' AND made_at > :since
    AND effective_at = made_at;

-- name: stream_periods
-- Every stored period with what it must follow from.
SELECT p.customer_id, p.subscription_id, p.interval, p.number, p.start_at, p.end_at, s.anchor_at,
    s.time_zone, GREATEST(s.anchor_at, s.started_at) AS begins_at
FROM subscription_period AS p
JOIN subscription AS s
    ON s.customer_id = p.customer_id AND s.subscription_id = p.subscription_id
ORDER BY p.customer_id, p.subscription_id, p.interval, p.number;

-- name: find_unended
-- Items that go on although their subscription is canceled.
SELECT i.customer_id, i.subscription_id, i.item_id
FROM subscription_item AS i
JOIN subscription AS s
    ON s.customer_id = i.customer_id AND s.subscription_id = i.subscription_id
WHERE s.status = 'canceled' AND i.active_from IS DISTINCT FROM i.active_until
    AND (i.active_until IS NULL OR i.active_until > s.canceled_at)
ORDER BY i.customer_id, i.item_id
LIMIT 100;

-- name: page_pinning
-- The next customers with a live item of one of these prices, one that a pause has ended, or a
-- change to one to come.
(
    SELECT DISTINCT customer_id FROM subscription_item
    WHERE price_id = ANY(:price_ids::uuid[]) AND active_until IS NULL AND customer_id > :after::uuid
    ORDER BY customer_id
    LIMIT :limit
)
UNION
(
    SELECT DISTINCT i.customer_id FROM subscription_item AS i
    JOIN subscription AS s
        ON s.customer_id = i.customer_id AND s.subscription_id = i.subscription_id
    WHERE i.price_id = ANY(:price_ids::uuid[]) AND i.end_reason = 'paused'
        AND s.status = 'paused' AND i.customer_id > :after::uuid
    ORDER BY i.customer_id
    LIMIT :limit
)
UNION
(
    SELECT DISTINCT customer_id FROM subscription_change
    WHERE state IN ('pending', 'queued')
      AND price_ids && :price_ids::uuid[] AND customer_id > :after::uuid
    ORDER BY customer_id
    LIMIT :limit
)
ORDER BY customer_id
LIMIT :limit;

-- name: list_pinned
-- Which prices are pinned, as part of which add-on, by subscriptions of which plan: each once.
SELECT DISTINCT i.price_id, i.add_on_key, s.plan_key
FROM subscription_item AS i
JOIN subscription AS s ON s.customer_id = i.customer_id AND s.subscription_id = i.subscription_id;
