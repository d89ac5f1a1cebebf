-- name: read_version$
-- The catalog's version; none before the first apply.
SELECT version FROM catalog_state;

-- name: begin_state!
-- Make the one row that an apply locks.
INSERT INTO catalog_state (version, applied_at) VALUES (0, :now) ON CONFLICT (only_row) DO NOTHING;

-- name: lock_state$
-- Let one apply run at a time.
SELECT version FROM catalog_state FOR UPDATE;

-- name: share_state
-- Keep any apply waiting, and return the version.
SELECT version FROM catalog_state FOR SHARE;

-- name: save_state!
-- Store the version that an apply ends with.
UPDATE catalog_state
SET version = :version, minimum_charge = :minimums::jsonb, applied_at = :now;

-- name: read_minimums$
-- The least that is asked for, in minor units by currency.
SELECT minimum_charge FROM catalog_state;

-- name: is_empty$
-- Whether nothing was ever described.
SELECT NOT EXISTS (SELECT FROM plan) AND NOT EXISTS (SELECT FROM meter)
    AND NOT EXISTS (SELECT FROM event_type);

-- name: read_events
-- The event types and the properties that the file declares.
SELECT event_type, keep FROM event_type ORDER BY event_type;

-- name: read_meters
-- Every meter.
SELECT meter_id, meter_key, name, event_type, aggregation, value, default_value, filters, group_by,
    version, starts_at
FROM meter ORDER BY meter_id;

-- name: read_definitions
-- What meters counted before, the oldest first.
SELECT meter_id, version, starts_at, ends_at, value, default_value, filters
FROM meter_version ORDER BY meter_id, version;

-- name: keep_definition!
-- Keep what a meter counts now as what it counted up to an instant.
INSERT INTO meter_version
    (meter_id, version, starts_at, ends_at, value, default_value, filters)
SELECT meter_id, version, starts_at, :ends_at, value, default_value, filters
FROM meter WHERE meter_id = :meter_id;

-- name: read_plans
-- Every plan, in the order of the file.
SELECT plan_key, name, description, archived, add_on FROM plan ORDER BY position, plan_key;

-- name: read_prices
-- Every price version but those that were negotiated.
SELECT price_id, price_key, version, name, meter_key, interval, currency, charge, quota,
    tax_category, tax_inclusive, once, dimension, charges
FROM price WHERE customer_id IS NULL ORDER BY price_key, version;

-- name: read_plan_prices
-- What each plan sells today, in order.
SELECT plan_key, price_id FROM plan_price ORDER BY plan_key, position;

-- name: read_prices_by_id
-- The price versions with these ids.
SELECT price_id, price_key, version, name, meter_key, interval, currency, charge, quota,
    tax_category, tax_inclusive, once, dimension, charges
FROM price WHERE price_id = ANY(:price_ids::uuid[]);

-- name: save_event!
-- Store an event type.
INSERT INTO event_type (event_type, keep) VALUES (:event_type, :keep::text[])
ON CONFLICT (event_type) DO UPDATE SET keep = excluded.keep;

-- name: delete_event!
-- Forget an event type that no meter reads.
DELETE FROM event_type WHERE event_type = :event_type;

-- name: save_meter!
-- Store a meter; of one that exists the name changes, and with a version the definition.
INSERT INTO meter
    (meter_key, name, event_type, aggregation, value, default_value, filters, group_by, version,
     starts_at, created_at)
VALUES
    (:meter_key, :name, :event_type, :aggregation, :value, :default_value, :filters::jsonb,
     :group_by::text[], :version, :starts_at, :now)
ON CONFLICT (meter_key) DO UPDATE
SET name = excluded.name, value = excluded.value, default_value = excluded.default_value,
    filters = excluded.filters, version = excluded.version, starts_at = excluded.starts_at;

-- name: delete_meter!
-- Forget a meter without usage and prices; the foreign keys refuse any other.
DELETE FROM meter WHERE meter_key = :meter_key;

-- name: save_plan!
-- Store a plan that is on sale.
INSERT INTO plan (plan_key, name, description, position, archived, add_on)
VALUES (:plan_key, :name, :description, :position, false, :add_on)
ON CONFLICT (plan_key) DO UPDATE
SET name = excluded.name, description = excluded.description, position = excluded.position,
    archived = false, add_on = excluded.add_on;

-- name: archive_plan!
-- Take a plan off sale.
UPDATE plan SET archived = true WHERE plan_key = :plan_key;

-- name: delete_plan!
-- Forget a plan without subscriptions; the foreign keys refuse any other.
DELETE FROM plan WHERE plan_key = :plan_key;

-- name: insert_price!
-- Store a price version, for ever.
INSERT INTO price
    (price_id, price_key, version, name, kind, meter_key, interval, currency, charge, quota,
     tax_category, tax_inclusive, once, dimension, charges, customer_id, created_at)
VALUES
    (:price_id, :price_key, :version, :name, :kind, :meter_key, :interval, :currency,
     :charge::jsonb, :quota::jsonb, :tax_category, :tax_inclusive, :once, :dimension,
     :charges::jsonb, :customer_id::uuid, :now);

-- name: delete_price!
-- Forget a price version that nobody pins; the foreign keys refuse any other.
DELETE FROM price WHERE price_id = :price_id;

-- name: clear_plan_prices!
-- Sell nothing, before the new list is stored in the same transaction.
DELETE FROM plan_price;

-- name: insert_plan_price!
-- Sell a price version in a plan.
INSERT INTO plan_price (plan_key, price_id, position)
SELECT :plan_key, price_id, :position FROM price
WHERE price_key = :price_key AND version = :version;
