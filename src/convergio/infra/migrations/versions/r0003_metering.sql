-- Aggregations and groups of meters, corrections of events, and alerts that are sent once.

ALTER TABLE meter ADD COLUMN group_by text[] NOT NULL DEFAULT '{}';

-- A meter's row has its newest definition, which is in force from starts_at on; the time of an
-- event decides which definition reads it.
ALTER TABLE meter ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);
ALTER TABLE meter ADD COLUMN starts_at timestamptz NOT NULL DEFAULT '1970-01-01T00:00:00Z';
CREATE TABLE meter_version (
    meter_id      integer NOT NULL REFERENCES meter ON DELETE CASCADE,
    version       integer NOT NULL CHECK (version > 0),
    starts_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL CHECK (starts_at < ends_at),
    value         text COLLATE "C",
    default_value numeric(38, 9) CHECK (default_value >= 0 AND default_value < 'NaN'),
    filters       jsonb NOT NULL,
    PRIMARY KEY (meter_id, version)
);

-- `last` is the value of the newest event: its time and key decide between two writers.
ALTER TABLE usage_total ADD COLUMN last_at timestamptz;
ALTER TABLE usage_total ADD COLUMN last_key uuid;
-- the percentages of the limit, or else of what is included, that raise an alert
ALTER TABLE usage_total ADD COLUMN alerts integer[] NOT NULL DEFAULT '{50,80,100}';

-- The distinct values that a window of a unique_count meter has seen, as 128 bits of SHA-256.
CREATE TABLE usage_unique (
    customer_id uuid NOT NULL,
    meter_id    integer NOT NULL REFERENCES meter,
    start_at    timestamptz NOT NULL,
    dimensions  text COLLATE "C" NOT NULL DEFAULT '',
    value_hash  uuid NOT NULL,
    PRIMARY KEY (customer_id, meter_id, start_at, dimensions, value_hash)
);

-- What an event counts as since it was corrected; the corrections themselves are events too.
CREATE TABLE usage_correction (
    customer_id    uuid NOT NULL,
    event_key      uuid NOT NULL,
    kind           text COLLATE "C" NOT NULL CHECK (kind IN ('void', 'amend')),
    properties     jsonb NOT NULL,
    corrected_at   timestamptz NOT NULL,
    correction_key uuid NOT NULL,
    PRIMARY KEY (customer_id, event_key),
    FOREIGN KEY (customer_id, event_key) REFERENCES usage_event ON DELETE CASCADE
);

-- Alerts that went out: one of a kind for each window, whatever happens afterwards.
CREATE TABLE usage_alert (
    customer_id uuid NOT NULL,
    meter_id    integer NOT NULL REFERENCES meter,
    start_at    timestamptz NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    raised_at   timestamptz NOT NULL,
    PRIMARY KEY (customer_id, meter_id, start_at, kind)
);

-- What each event adds to each meter that selects it: the slow, independent reading of the meter's
-- definition, for queries and for `verify`. The hot path has its own, and the two must agree.
CREATE VIEW metered_usage AS
SELECT e.customer_id, m.meter_id, e.event_key, e.occurred_at, m.aggregation,
    CASE WHEN m.aggregation IN ('count', 'unique_count') THEN 1
        ELSE coalesce((e.properties ->> m.value)::numeric, m.default_value) END AS quantity,
    e.properties ->> m.value AS item,
    CASE WHEN m.group_by = '{}' THEN '' ELSE (
        SELECT string_agg(
            coalesce(to_json(e.properties ->> g.name)::text, 'null'), ',' ORDER BY g.place)
        FROM unnest(m.group_by) WITH ORDINALITY AS g (name, place)) END AS dimensions
FROM (
    SELECT o.customer_id, o.event_key, o.type, o.occurred_at,
        coalesce(c.properties, o.properties) AS properties
    FROM usage_event o
    LEFT JOIN usage_correction c
        ON c.customer_id = o.customer_id AND c.event_key = o.event_key
    WHERE c.kind IS DISTINCT FROM 'void'
) e
JOIN (
    SELECT n.meter_id, n.event_type, n.aggregation, n.group_by, n.value, n.default_value, n.filters,
        n.starts_at, 'infinity'::timestamptz AS ends_at
    FROM meter n
    UNION ALL
    SELECT n.meter_id, n.event_type, n.aggregation, n.group_by, v.value, v.default_value, v.filters,
        v.starts_at, v.ends_at
    FROM meter n
    JOIN meter_version v ON v.meter_id = n.meter_id
) m ON m.event_type = e.type AND m.starts_at <= e.occurred_at AND e.occurred_at < m.ends_at
WHERE NOT EXISTS (
    SELECT FROM jsonb_array_elements(m.filters) f
    WHERE CASE f ->> 'op'
        WHEN 'exists' THEN (e.properties ->> (f ->> 'property') IS NOT NULL)
            <> (f -> 'values' @> '["true"]')
        WHEN 'in' THEN (f -> 'values' ? (e.properties ->> (f ->> 'property'))) IS NOT TRUE
        ELSE (f -> 'values' ? (e.properties ->> (f ->> 'property'))) IS TRUE
    END);


-- Retention (docs/adr/0007): no event before accepts_from is taken; up to deleted_until all were
-- archived and deleted. archive_sha256 is the verified archive of the month that is going now.
CREATE TABLE usage_retention (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    accepts_from   timestamptz NOT NULL,
    deleted_until  timestamptz NOT NULL,
    archive_sha256 text COLLATE "C" CHECK (archive_sha256 ~ '^[0-9a-f]{64}$'),
    CHECK (deleted_until <= accepts_from),
    CHECK (archive_sha256 IS NULL OR deleted_until < accepts_from)
);
INSERT INTO usage_retention (accepts_from, deleted_until)
VALUES ('1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z');
