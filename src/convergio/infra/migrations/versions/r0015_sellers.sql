-- A document keeps its seller, and the files of each series their own names.

-- billing: the seller's settings as documents were issued with them. The id is a digest of the
-- content, so the same seller is one row; a row never changes and is never deleted.
CREATE TABLE seller_version (
    seller_version_id uuid PRIMARY KEY,
    seller            jsonb NOT NULL,
    first_used_at     timestamptz NOT NULL
);
-- NULL: issued before this revision, and shown with the settings of the day on which it is read.
ALTER TABLE invoice ADD COLUMN seller_version_id uuid;
ALTER TABLE invoice ADD CONSTRAINT invoice_seller_version_id_fkey
    FOREIGN KEY (seller_version_id) REFERENCES seller_version NOT VALID;
ALTER TABLE credit_note ADD COLUMN seller_version_id uuid;
ALTER TABLE credit_note ADD CONSTRAINT credit_note_seller_version_id_fkey
    FOREIGN KEY (seller_version_id) REFERENCES seller_version NOT VALID;

-- The part of a FatturaPA file's name that tells a series and year from others. The first series
-- of a year has the part that the year alone gave until now, for its files have that name; others
-- take the highest that is free. NULL: none was left.
ALTER TABLE invoice_series
    ADD COLUMN file_block integer CHECK (file_block BETWEEN 0 AND 90);
WITH ranked AS (
    SELECT series, year, (year - 2020) * 2 + (series LIKE '%-CN')::integer AS usual,
        row_number() OVER (
            PARTITION BY year, series LIKE '%-CN' ORDER BY last_issue_on, series
        ) AS place
    FROM invoice_series
), first AS (
    SELECT series, year, usual FROM ranked WHERE place = 1 AND usual BETWEEN 0 AND 90
), other AS (
    SELECT r.series, r.year, row_number() OVER (ORDER BY r.year, r.place, r.series) AS turn
    FROM ranked AS r
    LEFT JOIN first AS f ON f.series = r.series AND f.year = r.year
    WHERE f.series IS NULL
), free AS (
    SELECT b.block, row_number() OVER (ORDER BY b.block DESC) AS turn
    FROM generate_series(0, 90) AS b (block)
    WHERE b.block NOT IN (SELECT usual FROM first)
), given AS (
    SELECT series, year, usual AS block FROM first
    UNION ALL
    SELECT o.series, o.year, f.block FROM other AS o JOIN free AS f ON f.turn = o.turn
)
UPDATE invoice_series AS s SET file_block = g.block
FROM given AS g
WHERE g.series = s.series AND g.year = s.year;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX invoice_series_file_block ON invoice_series (file_block);

-- payments: those that ended, to find the few whose invoice is settled otherwise since.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX collection_exhausted ON collection (customer_id, invoice_id)
    WHERE state = 'exhausted';
