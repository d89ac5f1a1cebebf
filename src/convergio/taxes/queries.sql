-- name: begin_state!
-- Make the one row that an apply locks.
INSERT INTO tax_state (version, seller_country, one_stop_shop, applied_at)
VALUES (0, :seller_country, false, :now) ON CONFLICT (only_row) DO NOTHING;

-- name: lock_state$
-- Let one apply run at a time.
SELECT version FROM tax_state FOR UPDATE;

-- name: save_state!
-- Store the version that an apply ends with, and where the seller is.
UPDATE tax_state SET version = :version, seller_country = :seller_country,
    one_stop_shop = :one_stop_shop, currency = :currency, fatturapa = :fatturapa,
    evidence_min = :evidence_min, applied_at = :now;

-- name: find_state^
-- Where the seller is; nothing before the first apply.
SELECT version, seller_country, one_stop_shop, currency, fatturapa, evidence_min
FROM tax_state WHERE version > 0;

-- name: list_registrations
-- Where the seller is registered.
SELECT country, region, valid_from, valid_to FROM tax_registration
ORDER BY country, region, valid_from;

-- name: list_rates
-- Every rate.
SELECT country, region, category, valid_from, valid_to, percent, is_exempt, reason FROM tax_rate
ORDER BY country, region, category, valid_from;

-- name: clear_registrations!
-- Forget the registrations, before those of the file follow in the same transaction.
DELETE FROM tax_registration;

-- name: clear_rates!
-- Forget the rates, before those of the file follow in the same transaction.
DELETE FROM tax_rate;

-- name: copy_registrations!
-- Load the registrations of the file.
COPY tax_registration (country, region, valid_from, valid_to) FROM STDIN;

-- name: copy_rates!
-- Load the rates of the file.
COPY tax_rate (country, region, category, valid_from, valid_to, percent, is_exempt, reason)
    FROM STDIN;

-- name: insert_check!
-- Keep a check of a customer's tax number.
INSERT INTO tax_id_check (customer_id, check_id, country, checker, is_valid, evidence, checked_at)
VALUES (:customer_id, :check_id, :country, :checker, :is_valid, :evidence, :checked_at);

-- name: list_checks
-- The checks of a customer's tax number, the newest first.
SELECT customer_id, check_id, country, checker, is_valid, evidence, checked_at
FROM tax_id_check
WHERE customer_id = :customer_id
ORDER BY checked_at DESC, check_id DESC
LIMIT :limit;

-- name: list_credited
-- What credit notes took back of the tax groups of each invoice: as priced, and the tax.
SELECT n.invoice_id, t.category, t.rate, t.treatment, t.inclusive,
    sum(CASE WHEN t.inclusive THEN t.net + t.tax ELSE t.net END)::bigint AS priced,
    sum(t.tax)::bigint AS tax
FROM credit_note_tax AS t
JOIN credit_note AS n
    ON n.customer_id = t.customer_id AND n.credit_note_id = t.credit_note_id
WHERE t.customer_id = ANY(:customer_ids::uuid[])
GROUP BY n.invoice_id, t.category, t.rate, t.treatment, t.inclusive;

-- name: copy_invoice_taxes
-- Load the taxes of invoices that are written in the same transaction.
COPY invoice_tax (customer_id, invoice_id, category, rate, treatment, inclusive, net, tax, reason,
    stated_net, stated_tax) FROM STDIN;

-- name: copy_credit_note_taxes
-- Load the taxes of credit notes that are written in the same transaction.
COPY credit_note_tax (customer_id, credit_note_id, category, rate, treatment, inclusive, net, tax,
    reason, stated_net, stated_tax) FROM STDIN;

-- name: list_invoice_taxes
-- The taxes of the invoices of these customers, of one where it is given.
SELECT customer_id, invoice_id, category, rate, treatment, net, tax, reason, inclusive,
    stated_net, stated_tax
FROM invoice_tax
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND (:invoice_id::uuid IS NULL OR invoice_id = :invoice_id::uuid)
ORDER BY customer_id, invoice_id, rate DESC, category, treatment, inclusive;

-- name: list_credit_note_taxes
-- The taxes of the credit notes of these customers, of one where it is given.
SELECT customer_id, credit_note_id, category, rate, treatment, net, tax, reason, inclusive,
    stated_net, stated_tax
FROM credit_note_tax
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND (:credit_note_id::uuid IS NULL OR credit_note_id = :credit_note_id::uuid)
ORDER BY customer_id, credit_note_id, rate DESC, category, treatment, inclusive;

-- name: list_other_rates
-- Stored rates that differ from these.
SELECT s.currency, s.day, s.rate, n.rate AS wanted
FROM unnest(:currencies::text[], :days::date[], :rates::numeric[]) AS n (currency, day, rate)
JOIN exchange_rate AS s ON s.currency = n.currency AND s.day = n.day
WHERE s.rate <> n.rate
ORDER BY s.day, s.currency
LIMIT 1;

-- name: save_rates!
-- Store rates; one that is there is written again only where it differs.
INSERT INTO exchange_rate AS s (currency, day, rate, source, imported_at)
SELECT n.currency, n.day, n.rate, :source, :now
FROM unnest(:currencies::text[], :days::date[], :rates::numeric[]) AS n (currency, day, rate)
ON CONFLICT (currency, day) DO UPDATE
    SET rate = excluded.rate, source = excluded.source, imported_at = excluded.imported_at
    WHERE s.rate <> excluded.rate;

-- name: list_last_rates
-- The last rate of each of these currencies on or before a day, if it is not too old.
SELECT DISTINCT ON (currency) currency, day, rate, source
FROM exchange_rate
WHERE currency = ANY(:currencies::text[]) AND day BETWEEN :since AND :day
ORDER BY currency, day DESC;

-- name: copy_exchanges
-- Load how invoices were converted, in the transaction that writes them.
COPY invoice_exchange (customer_id, invoice_id, currency, day, foreign_rate, home_rate, source)
    FROM STDIN;

-- name: copy_places
-- Load where invoices were taxed, in the transaction that writes them.
COPY invoice_place (customer_id, invoice_id, country, evidence) FROM STDIN;

-- name: list_exchanges
-- How these invoices were converted, those that were.
SELECT invoice_id, currency, day, foreign_rate, home_rate, source
FROM invoice_exchange
WHERE customer_id = ANY(:customer_ids::uuid[]) AND invoice_id = ANY(:invoice_ids::uuid[]);

-- name: list_stated
-- What credit notes of these customers gave back of each tax group, also in the seller's currency.
SELECT n.invoice_id, t.category, t.rate, t.treatment, t.inclusive, sum(t.net)::bigint,
    sum(t.tax)::bigint, sum(t.stated_net)::bigint, sum(t.stated_tax)::bigint
FROM credit_note_tax AS t
JOIN credit_note AS n ON n.customer_id = t.customer_id AND n.credit_note_id = t.credit_note_id
WHERE t.customer_id = ANY(:customer_ids::uuid[]) AND t.stated_tax IS NOT NULL
GROUP BY n.invoice_id, t.category, t.rate, t.treatment, t.inclusive;

-- name: find_kept^
-- How an invoice was converted and where it was taxed; NULLs where nothing of it is kept.
SELECT e.currency, e.day, e.foreign_rate, e.home_rate, e.source, p.invoice_id, p.country,
    p.evidence
FROM (VALUES (:customer_id::uuid, :invoice_id::uuid)) AS one (customer_id, invoice_id)
LEFT JOIN invoice_exchange AS e
    ON e.customer_id = one.customer_id AND e.invoice_id = one.invoice_id
LEFT JOIN invoice_place AS p
    ON p.customer_id = one.customer_id AND p.invoice_id = one.invoice_id;

-- name: save_evidence!
-- Keep what was seen of where a customer is: the last of each kind.
INSERT INTO tax_evidence (customer_id, kind, country, note, seen_at)
VALUES (:customer_id, :kind, :country, :note, :seen_at)
ON CONFLICT (customer_id, kind) DO UPDATE
    SET country = excluded.country, note = excluded.note, seen_at = excluded.seen_at;

-- name: list_evidence
-- What was seen of where these customers are.
SELECT customer_id, kind, country, note, seen_at
FROM tax_evidence
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, kind;
