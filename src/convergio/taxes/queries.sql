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
    one_stop_shop = :one_stop_shop, applied_at = :now;

-- name: find_state^
-- Where the seller is; nothing before the first apply.
SELECT version, seller_country, one_stop_shop FROM tax_state WHERE version > 0;

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
COPY invoice_tax (customer_id, invoice_id, category, rate, treatment, inclusive, net, tax, reason)
    FROM STDIN;

-- name: copy_credit_note_taxes
-- Load the taxes of credit notes that are written in the same transaction.
COPY credit_note_tax (customer_id, credit_note_id, category, rate, treatment, inclusive, net, tax,
    reason) FROM STDIN;

-- name: list_invoice_taxes
-- The taxes of the invoices of these customers, of one where it is given.
SELECT customer_id, invoice_id, category, rate, treatment, net, tax, reason, inclusive
FROM invoice_tax
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND (:invoice_id::uuid IS NULL OR invoice_id = :invoice_id::uuid)
ORDER BY customer_id, invoice_id, rate DESC, category, treatment, inclusive;

-- name: list_credit_note_taxes
-- The taxes of the credit notes of these customers, of one where it is given.
SELECT customer_id, credit_note_id, category, rate, treatment, net, tax, reason, inclusive
FROM credit_note_tax
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND (:credit_note_id::uuid IS NULL OR credit_note_id = :credit_note_id::uuid)
ORDER BY customer_id, credit_note_id, rate DESC, category, treatment, inclusive;
