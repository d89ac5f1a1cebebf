-- name: sum_billed
-- What the lines of each charge key add up to, for a page of customers.
SELECT customer_id, item_id, period_start, kind, dimensions, max(period_end) AS period_end,
    sum(amount)::bigint AS amount, sum(quantity) AS quantity
FROM invoice_line
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY customer_id, item_id, period_start, kind, dimensions;

-- name: list_last_boundaries
-- The last invoiced boundary of each of these customers.
SELECT customer_id, max(boundary_at) AS boundary_at
FROM invoice
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY customer_id;

-- name: copy_lines
-- Load lines in bulk; their invoices follow in the same transaction (a deferred foreign key).
COPY invoice_line (customer_id, invoice_id, line_number, subscription_id, item_id, period_start,
    kind, dimensions, period_end, price_id, reason, description, quantity, amount, currency,
    detail) FROM STDIN;

-- name: copy_invoices
-- Load numbered invoices in bulk.
COPY invoice (customer_id, invoice_id, boundary_at, series, year, number, status, currency, total,
    paid, issued_on, due_on, finalized_at, sealed_buyer) FROM STDIN;

-- name: lock_series
-- Make everyone who numbers this series take turns until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('invoice_series:' || :series, 0));

-- name: find_last_issue$
-- The day of the last issue in a series, over all its years.
SELECT max(last_issue_on) FROM invoice_series WHERE series = :series;

-- name: take_numbers$
-- Take the next numbers of a series and year; return the last of them.
INSERT INTO invoice_series (series, year, last_number, last_issue_on)
VALUES (:series, :year, :count, :issued_on)
ON CONFLICT (series, year) DO UPDATE
SET last_number = invoice_series.last_number + excluded.last_number,
    last_issue_on = excluded.last_issue_on
RETURNING last_number;

-- name: insert_run!
-- Note that a run has begun.
INSERT INTO billing_run (run_id, as_of, started_at) VALUES (:run_id, :as_of, :started_at);

-- name: finish_run!
-- Note how a run ended.
UPDATE billing_run SET finished_at = :finished_at, report = :report::jsonb
WHERE run_id = :run_id;

-- name: find_last_run^
-- The run that reached furthest; of several, a finished one.
SELECT as_of, started_at, (report ->> 'closed')::timestamptz AS closed FROM billing_run
ORDER BY as_of DESC, finished_at DESC NULLS LAST
LIMIT 1;

-- name: find_invoice^
-- One invoice of one customer.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE customer_id = :customer_id AND invoice_id = :invoice_id;

-- name: find_identified^
-- The invoice with an id, whoever its customer is.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE invoice_id = :invoice_id;

-- name: find_numbered^
-- The invoice with a number.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE series = :series AND year = :year AND number = :number;

-- name: lock_invoice^
-- Lock one invoice of one customer.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE customer_id = :customer_id AND invoice_id = :invoice_id
FOR UPDATE;

-- name: page_open
-- The next open invoices in the order of customer and id.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE status = 'open'
    AND (customer_id, invoice_id) > (:after_customer_id::uuid, :after_invoice_id::uuid)
ORDER BY customer_id, invoice_id
LIMIT :limit;

-- name: page_invoices
-- The next invoices in the order of customer and id, of one customer or status where given.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer
FROM invoice
WHERE (customer_id, invoice_id) > (:after_customer_id::uuid, :after_invoice_id::uuid)
    AND (:customer_id::uuid IS NULL OR customer_id = :customer_id)
    AND (:status::text IS NULL OR status = :status)
ORDER BY customer_id, invoice_id
LIMIT :limit;

-- name: save_payment!
-- Store what is paid of an invoice.
UPDATE invoice SET paid = :paid, status = :status
WHERE customer_id = :customer_id AND invoice_id = :invoice_id;

-- name: list_lines
-- The lines of one invoice.
SELECT line_number, subscription_id, item_id, period_start, kind, dimensions, period_end, price_id,
    reason, description, quantity, amount, currency, detail
FROM invoice_line
WHERE customer_id = :customer_id AND invoice_id = :invoice_id
ORDER BY line_number;

-- name: find_unequal
-- Invoices whose lines do not add up to their total.
SELECT i.customer_id, i.series, i.year, i.number, i.total, COALESCE(l.amount, 0)::bigint AS lines
FROM invoice AS i
LEFT JOIN (
    SELECT customer_id, invoice_id, sum(amount) AS amount
    FROM invoice_line
    GROUP BY customer_id, invoice_id
) AS l ON l.customer_id = i.customer_id AND l.invoice_id = i.invoice_id
WHERE i.total <> COALESCE(l.amount, 0)
ORDER BY i.customer_id, i.boundary_at
LIMIT 100;

-- name: list_numbering
-- What each series and year holds beside what it says: gaps and duplicates change these figures.
SELECT COALESCE(s.series, i.series) AS series, COALESCE(s.year, i.year) AS year,
    COALESCE(s.last_number, 0) AS last_number, COALESCE(i.lowest, 0)::bigint AS lowest,
    COALESCE(i.highest, 0)::bigint AS highest, COALESCE(i.invoices, 0)::bigint AS invoices,
    COALESCE(i.numbers, 0)::bigint AS numbers
FROM invoice_series AS s
FULL JOIN (
    SELECT series, year, min(number) AS lowest, max(number) AS highest, count(*) AS invoices,
        count(DISTINCT number) AS numbers
    FROM invoice
    GROUP BY series, year
) AS i ON i.series = s.series AND i.year = s.year
ORDER BY 1, 2;

-- name: list_amounts
-- The invoices of a page of customers with their total and what is paid of it.
SELECT customer_id, invoice_id, currency, total, paid
FROM invoice
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, invoice_id;

-- name: list_revenue
-- What the lines of each invoice add up to by kind, for a page of customers.
SELECT customer_id, invoice_id, kind, currency, sum(amount)::bigint AS amount
FROM invoice_line
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY customer_id, invoice_id, kind, currency
HAVING sum(amount) <> 0
ORDER BY customer_id, invoice_id, kind;
