-- name: sum_billed
-- What the lines of each charge key, less corrections of them, add up to for a page of customers,
-- but for periods before their subscription's floor.
WITH floors AS (
    SELECT subscription_id, floor
    FROM unnest(:subscription_ids::uuid[], :floors::timestamptz[]) AS f (subscription_id, floor)
)
SELECT customer_id, item_id, period_start, kind, dimensions, max(period_end) AS period_end,
    sum(amount)::bigint AS amount, sum(quantity) AS quantity
FROM (
    SELECT l.customer_id, l.item_id, l.period_start, l.kind, l.dimensions, l.period_end, l.amount,
        l.quantity
    FROM invoice_line AS l
    LEFT JOIN floors AS f ON f.subscription_id = l.subscription_id
    WHERE l.customer_id = ANY(:customer_ids::uuid[])
        AND (f.floor IS NULL OR l.period_start >= f.floor)
    UNION ALL
    SELECT l.customer_id, l.item_id, l.period_start, l.kind, l.dimensions, l.period_end,
        -c.amount, -c.quantity
    FROM credit_note_line AS c
    JOIN credit_note AS n
        ON n.customer_id = c.customer_id AND n.credit_note_id = c.credit_note_id
    JOIN invoice_line AS l ON l.customer_id = c.customer_id AND l.invoice_id = c.invoice_id
        AND l.line_number = c.invoice_line
    LEFT JOIN floors AS f ON f.subscription_id = l.subscription_id
    WHERE c.customer_id = ANY(:customer_ids::uuid[]) AND n.kind = 'correction'
        AND (f.floor IS NULL OR l.period_start >= f.floor)
) AS every
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
    detail, origin_invoice_id, origin_line) FROM STDIN (FORMAT BINARY);

-- name: copy_charged_lines
-- Load lines that have a discount or a tax in bulk, as `copy_lines` does the others.
COPY invoice_line (customer_id, invoice_id, line_number, subscription_id, item_id, period_start,
    kind, dimensions, period_end, price_id, reason, description, quantity, amount, currency,
    detail, origin_invoice_id, origin_line, discount, tax_category, tax_rate, tax_treatment,
    tax_inclusive) FROM STDIN (FORMAT BINARY);

-- name: copy_invoices
-- Load numbered invoices in bulk.
COPY invoice (customer_id, invoice_id, boundary_at, series, year, number, status, currency, total,
    paid, issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax, seller_version_id) FROM STDIN (FORMAT BINARY);

-- name: lock_series
-- Make everyone who numbers this series take turns until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('invoice_series:' || :series, 0));

-- name: find_last_issue$
-- The day of the last issue in a series, over all its years.
SELECT max(last_issue_on) FROM invoice_series WHERE series = :series;

-- name: take_numbers$
-- Take the next numbers of a series and year; return the last of them. A new one takes the block of
-- file names that is meant for it, or else the last that is free.
INSERT INTO invoice_series (series, year, last_number, last_issue_on, file_block)
VALUES (:series, :year, :count, :issued_on, (
    SELECT b.block
    FROM generate_series(0, :blocks::integer - 1) AS b (block)
    WHERE NOT EXISTS (SELECT FROM invoice_series AS s WHERE s.file_block = b.block)
    ORDER BY b.block <> :usual::integer, b.block DESC
    LIMIT 1))
ON CONFLICT (series, year) DO UPDATE
SET last_number = invoice_series.last_number + excluded.last_number,
    last_issue_on = excluded.last_issue_on
RETURNING last_number;

-- name: keep_seller!
-- Keep who issues; the id follows from the content, so who is known is there already.
INSERT INTO seller_version (seller_version_id, seller, first_used_at)
VALUES (:version_id, :seller::jsonb, :first_used_at)
ON CONFLICT (seller_version_id) DO NOTHING;

-- name: find_issued^
-- Who issued an invoice, and the block of its files' names.
SELECT v.seller::text AS seller, s.file_block
FROM invoice AS i
LEFT JOIN seller_version AS v ON v.seller_version_id = i.seller_version_id
LEFT JOIN invoice_series AS s ON s.series = i.series AND s.year = i.year
WHERE i.customer_id = :customer_id AND i.invoice_id = :invoice_id;

-- name: insert_run!
-- Note that a run has begun.
INSERT INTO billing_run (run_id, as_of, started_at, turn)
VALUES (:run_id, :as_of, :started_at, :turn);

-- name: next_turn$
-- Take a place in the order in which runs and pages begin.
SELECT nextval('billing_turn');

-- name: claim_page$
-- Take a page until the transaction ends; false while another worker has it.
SELECT pg_try_advisory_xact_lock(hashtextextended('billing_page:' || :first_id::uuid, 0));

-- name: lock_page
-- Take a page until the transaction ends, once whoever has it is done.
SELECT pg_advisory_xact_lock(hashtextextended('billing_page:' || :first_id::uuid, 0));

-- name: find_page^
-- The same page, billed at least as far by someone who began it after a turn.
SELECT run_id, customers FROM billing_page
WHERE first_id = :first_id AND until_id IS NOT DISTINCT FROM :until_id::uuid AND turn > :turn
    AND closed >= :closed
ORDER BY turn DESC
LIMIT 1;

-- name: insert_page!
-- Note what a run did with a page.
INSERT INTO billing_page (first_id, turn, until_id, run_id, closed, customers, report)
VALUES (:first_id, :turn, :until_id, :run_id, :closed, :customers, :report::jsonb);

-- name: list_reports
-- What a run did, page by page.
SELECT report::text FROM billing_page WHERE run_id = :run_id ORDER BY first_id;

-- name: delete_pages!
-- Forget the pages of old runs; what a finished one did is in its own row.
DELETE FROM billing_page AS p USING billing_run AS r
WHERE r.run_id = p.run_id AND r.started_at < :begun_before;

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
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE customer_id = :customer_id AND invoice_id = :invoice_id;

-- name: find_identified^
-- The invoice with an id, whoever its customer is.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE invoice_id = :invoice_id;

-- name: find_numbered^
-- The invoice with a number.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE series = :series AND year = :year AND number = :number;

-- name: lock_invoice^
-- Lock one invoice of one customer; what refers to it need not wait.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE customer_id = :customer_id AND invoice_id = :invoice_id
FOR NO KEY UPDATE;

-- name: page_open
-- The next open invoices in the order of customer and id.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE status = 'open'
    AND (customer_id, invoice_id) > (:after_customer_id::uuid, :after_invoice_id::uuid)
ORDER BY customer_id, invoice_id
LIMIT :limit;

-- name: page_invoices
-- The next invoices in the order of customer and id, of one customer, status, series or days.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE (customer_id, invoice_id) > (:after_customer_id::uuid, :after_invoice_id::uuid)
    AND (:customer_id::uuid IS NULL OR customer_id = :customer_id)
    AND (:status::text IS NULL OR status = :status)
    AND (:series::text IS NULL OR series = :series)
    AND (:issued_from::date IS NULL OR issued_on >= :issued_from)
    AND (:issued_to::date IS NULL OR issued_on < :issued_to)
ORDER BY customer_id, invoice_id
LIMIT :limit;

-- name: lock_invoices
-- Lock invoices of customers in the order of their ids.
SELECT customer_id, invoice_id, boundary_at, series, year, number, status, currency, total, paid,
    issued_on, due_on, finalized_at, sealed_buyer, credited, from_balance, excess, subtotal,
    discount, tax
FROM invoice
WHERE customer_id = ANY(:customer_ids::uuid[]) AND invoice_id = ANY(:invoice_ids::uuid[])
ORDER BY customer_id, invoice_id
FOR NO KEY UPDATE;

-- name: save_settled!
-- Store how an invoice stands and what settles it.
UPDATE invoice SET status = :status, paid = :paid, credited = :credited, excess = :excess
WHERE customer_id = :customer_id AND invoice_id = :invoice_id;

-- name: list_lines
-- The lines of one invoice.
SELECT line_number, subscription_id, item_id, period_start, kind, dimensions, period_end, price_id,
    reason, description, quantity, amount, currency, detail, origin_invoice_id, origin_line,
    discount, tax_category, tax_rate, tax_treatment, tax_inclusive
FROM invoice_line
WHERE customer_id = :customer_id AND invoice_id = :invoice_id
ORDER BY line_number;

-- name: find_unequal
-- Invoices whose sums are not those of their lines and taxes.
SELECT i.customer_id, i.series, i.year, i.number, v.what, v.found AS total,
    v.expected::bigint AS lines
FROM invoice AS i
LEFT JOIN (
    SELECT customer_id, invoice_id, sum(amount) AS amount, sum(discount) AS discount
    FROM invoice_line
    GROUP BY customer_id, invoice_id
) AS l ON l.customer_id = i.customer_id AND l.invoice_id = i.invoice_id
LEFT JOIN (
    SELECT customer_id, invoice_id, sum(tax) AS tax, sum(tax) FILTER (WHERE NOT inclusive) AS beside
    FROM invoice_tax
    GROUP BY customer_id, invoice_id
) AS t ON t.customer_id = i.customer_id AND t.invoice_id = i.invoice_id
CROSS JOIN LATERAL (VALUES
    ('subtotal', i.subtotal, COALESCE(l.amount, 0)),
    ('discount', i.discount, COALESCE(l.discount, 0)),
    ('tax', i.tax, COALESCE(t.tax, 0)),
    ('total', i.total, COALESCE(l.amount - l.discount, 0) + COALESCE(t.beside, 0))
) AS v (what, found, expected)
WHERE v.found <> v.expected
ORDER BY i.customer_id, i.boundary_at, v.what
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
    FROM (
        SELECT series, year, number FROM invoice
        UNION ALL
        SELECT series, year, number FROM credit_note
    ) AS every
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
-- What the lines of each invoice come to after discount, by kind and tax, for a page of customers.
SELECT customer_id, invoice_id AS source_id, kind, currency,
    sum(amount - discount)::bigint AS amount, tax_category, tax_rate, tax_treatment, tax_inclusive
FROM invoice_line
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY customer_id, invoice_id, kind, currency, tax_category, tax_rate, tax_treatment,
    tax_inclusive
ORDER BY customer_id, invoice_id, kind;

-- name: list_reversed
-- What the lines of each credit note come to, by the kind and tax of what they take back.
SELECT c.customer_id, c.credit_note_id AS source_id, l.kind, l.currency,
    sum(c.amount - c.discount)::bigint AS amount, l.tax_category, l.tax_rate, l.tax_treatment,
    l.tax_inclusive
FROM credit_note_line AS c
JOIN invoice_line AS l ON l.customer_id = c.customer_id AND l.invoice_id = c.invoice_id
    AND l.line_number = c.invoice_line
WHERE c.customer_id = ANY(:customer_ids::uuid[])
GROUP BY c.customer_id, c.credit_note_id, l.kind, l.currency, l.tax_category, l.tax_rate,
    l.tax_treatment, l.tax_inclusive
ORDER BY c.customer_id, c.credit_note_id, l.kind;

-- name: list_discounts
-- The discount of lines of these customers, and what corrections took back of it.
SELECT l.invoice_id, l.line_number, l.discount, COALESCE(c.discount, 0)::bigint AS corrected
FROM invoice_line AS l
LEFT JOIN (
    SELECT c.customer_id, c.invoice_id, c.invoice_line, sum(c.discount) AS discount
    FROM credit_note_line AS c
    JOIN credit_note AS n
        ON n.customer_id = c.customer_id AND n.credit_note_id = c.credit_note_id
    WHERE c.customer_id = ANY(:customer_ids::uuid[]) AND n.kind = 'correction'
    GROUP BY c.customer_id, c.invoice_id, c.invoice_line
) AS c ON c.customer_id = l.customer_id AND c.invoice_id = l.invoice_id
    AND c.invoice_line = l.line_number
WHERE l.customer_id = ANY(:customer_ids::uuid[]) AND l.discount <> 0;

-- name: list_creditable
-- What is left to credit of each line, the newest invoice first: less credit notes, and less what
-- later lines took back, unless a credit note undid that again.
WITH noted AS (
    SELECT customer_id, invoice_id, invoice_line, sum(amount) AS amount, sum(discount) AS discount
    FROM credit_note_line
    WHERE customer_id = ANY(:customer_ids::uuid[])
    GROUP BY customer_id, invoice_id, invoice_line
), netted AS (
    SELECT o.customer_id, o.origin_invoice_id AS invoice_id, o.origin_line AS invoice_line,
        sum(o.amount - COALESCE(r.amount, 0)) AS amount,
        sum(o.discount - COALESCE(r.discount, 0)) AS discount
    FROM invoice_line AS o
    LEFT JOIN noted AS r ON r.customer_id = o.customer_id AND r.invoice_id = o.invoice_id
        AND r.invoice_line = o.line_number
    WHERE o.customer_id = ANY(:customer_ids::uuid[]) AND o.origin_invoice_id IS NOT NULL
    GROUP BY o.customer_id, o.origin_invoice_id, o.origin_line
)
SELECT l.customer_id, l.invoice_id, l.line_number, l.item_id, l.period_start, l.kind,
    l.dimensions, l.description, l.currency,
    (l.amount - COALESCE(c.amount, 0) + COALESCE(n.amount, 0))::bigint AS remaining,
    (l.discount - COALESCE(c.discount, 0) + COALESCE(n.discount, 0))::bigint AS discount_left,
    l.tax_category, l.tax_rate, l.tax_treatment, l.tax_inclusive
FROM invoice_line AS l
JOIN invoice AS i ON i.customer_id = l.customer_id AND i.invoice_id = l.invoice_id
LEFT JOIN noted AS c ON c.customer_id = l.customer_id AND c.invoice_id = l.invoice_id
    AND c.invoice_line = l.line_number
LEFT JOIN netted AS n ON n.customer_id = l.customer_id AND n.invoice_id = l.invoice_id
    AND n.invoice_line = l.line_number
WHERE l.customer_id = ANY(:customer_ids::uuid[])
    AND (:invoice_id::uuid IS NULL OR l.invoice_id = :invoice_id::uuid)
ORDER BY l.customer_id, i.finalized_at DESC, i.boundary_at DESC, l.line_number;

-- name: has_fees_from$
-- Whether a fee of a customer's period that begins at an instant or later is billed, corrections
-- taken off: what is void to be billed again is not. What is asked once is no fee of a period.
SELECT EXISTS (
    SELECT FROM (
        SELECT l.item_id, l.period_start, l.amount
        FROM invoice_line AS l
        JOIN price AS p ON p.price_id = l.price_id AND NOT p.once
        WHERE l.customer_id = :customer_id AND l.kind = 'fixed' AND l.period_start >= :start_at
        UNION ALL
        SELECT l.item_id, l.period_start, -c.amount
        FROM credit_note_line AS c
        JOIN credit_note AS n
            ON n.customer_id = c.customer_id AND n.credit_note_id = c.credit_note_id
        JOIN invoice_line AS l ON l.customer_id = c.customer_id AND l.invoice_id = c.invoice_id
            AND l.line_number = c.invoice_line
        WHERE c.customer_id = :customer_id AND n.kind = 'correction' AND l.kind = 'fixed'
            AND l.period_start >= :start_at
    ) AS every
    GROUP BY item_id, period_start
    HAVING sum(amount) > 0);

-- name: copy_credit_notes
-- Load numbered credit notes in bulk.
COPY credit_note (customer_id, credit_note_id, invoice_id, series, year, number, kind, reason,
    currency, total, applied, issued_on, finalized_at, sealed_buyer, subtotal, discount, tax,
    seller_version_id) FROM STDIN;

-- name: copy_credit_note_lines
-- Load the lines of credit notes in bulk.
COPY credit_note_line (customer_id, credit_note_id, line_number, invoice_id, invoice_line,
    description, quantity, amount, discount) FROM STDIN;

-- name: page_credit_notes
-- The next credit notes in the order of customer and id, of one customer or invoice where given.
SELECT n.customer_id, n.credit_note_id, n.invoice_id, n.series, n.year, n.number, n.kind, n.reason,
    n.currency, n.total, n.applied, n.issued_on, n.finalized_at, n.sealed_buyer, n.subtotal,
    n.discount, n.tax, v.seller::text, s.file_block
FROM credit_note AS n
LEFT JOIN seller_version AS v ON v.seller_version_id = n.seller_version_id
LEFT JOIN invoice_series AS s ON s.series = n.series AND s.year = n.year
WHERE (n.customer_id, n.credit_note_id) > (:after_customer_id::uuid, :after_credit_note_id::uuid)
    AND (:customer_id::uuid IS NULL OR n.customer_id = :customer_id)
    AND (:invoice_id::uuid IS NULL OR n.invoice_id = :invoice_id)
ORDER BY n.customer_id, n.credit_note_id
LIMIT :limit;

-- name: find_credit_note
-- The credit note with a number.
SELECT n.customer_id, n.credit_note_id, n.invoice_id, n.series, n.year, n.number, n.kind, n.reason,
    n.currency, n.total, n.applied, n.issued_on, n.finalized_at, n.sealed_buyer, n.subtotal,
    n.discount, n.tax, v.seller::text, s.file_block
FROM credit_note AS n
LEFT JOIN seller_version AS v ON v.seller_version_id = n.seller_version_id
LEFT JOIN invoice_series AS s ON s.series = n.series AND s.year = n.year
WHERE n.series = :series AND n.year = :year AND n.number = :number;

-- name: list_credit_note_lines
-- The lines of one credit note.
SELECT line_number, invoice_id, invoice_line, description, quantity, amount, discount
FROM credit_note_line
WHERE customer_id = :customer_id AND credit_note_id = :credit_note_id
ORDER BY line_number;

-- name: count_lines_since
-- How many lines that amend others each subscription of these customers got since an instant, on
-- invoices and on the credit notes of runs: what a person credits or voids is no circle.
SELECT customer_id, subscription_id, count(*) AS lines
FROM (
    SELECT l.customer_id, l.subscription_id
    FROM invoice AS i
    JOIN invoice_line AS l ON l.customer_id = i.customer_id AND l.invoice_id = i.invoice_id
    WHERE i.customer_id = ANY(:customer_ids::uuid[]) AND i.finalized_at >= :since
        AND l.reason <> ALL(:fresh::text[])
    UNION ALL
    SELECT l.customer_id, l.subscription_id
    FROM credit_note AS n
    JOIN credit_note_line AS c
        ON c.customer_id = n.customer_id AND c.credit_note_id = n.credit_note_id
    JOIN invoice_line AS l ON l.customer_id = c.customer_id AND l.invoice_id = c.invoice_id
        AND l.line_number = c.invoice_line
    WHERE n.customer_id = ANY(:customer_ids::uuid[]) AND n.finalized_at >= :since
        AND n.kind = 'correction' AND n.reason LIKE 'credit: %%'
) AS amended
GROUP BY customer_id, subscription_id;

-- name: park
-- Note why a customer is left out; who is parked already keeps the day. Return whose reason is of
-- another code than before, or who was not parked.
WITH known AS (
    SELECT customer_id, code FROM billing_park WHERE customer_id = ANY(:customer_ids::uuid[])
), parked AS (
    INSERT INTO billing_park AS p (customer_id, code, reason, parked_at)
    SELECT n.customer_id, n.code, n.reason, :parked_at::timestamptz
    FROM unnest(:customer_ids::uuid[], :codes::text[], :reasons::text[])
        AS n (customer_id, code, reason)
    ON CONFLICT (customer_id) DO UPDATE SET code = excluded.code, reason = excluded.reason
    RETURNING p.customer_id, p.code
)
SELECT p.customer_id
FROM parked AS p
LEFT JOIN known AS k ON k.customer_id = p.customer_id
WHERE k.code IS DISTINCT FROM p.code;

-- name: unpark
-- Take customers off the list whose reason is gone; return who was on it.
DELETE FROM billing_park
WHERE customer_id = ANY(:customer_ids::uuid[])
RETURNING customer_id;

-- name: list_parked
-- Everyone who is left out, and why.
SELECT customer_id, code, reason, parked_at FROM billing_park ORDER BY parked_at, customer_id;

-- name: find_strange
-- Sums that two places disagree about: what credit notes, the balance and excess payments did.
SELECT customer_id, document_id, what, expected::bigint AS expected, found::bigint AS found
FROM (
    SELECT i.customer_id, i.invoice_id AS document_id, 'credited' AS what,
        COALESCE(sum(n.applied), 0) AS expected, i.credited AS found
    FROM invoice AS i
    LEFT JOIN credit_note AS n
        ON n.customer_id = i.customer_id AND n.invoice_id = i.invoice_id
    WHERE i.credited <> 0 OR n.applied <> 0
    GROUP BY i.customer_id, i.invoice_id, i.credited
    UNION ALL
    SELECT i.customer_id, i.invoice_id, 'from_balance', COALESCE(sum(t.amount), 0), i.from_balance
    FROM invoice AS i
    LEFT JOIN ledger_transfer AS t ON t.customer_id = i.customer_id
        AND t.source_id = i.invoice_id AND t.kind = 'balance'
    WHERE i.from_balance <> 0
    GROUP BY i.customer_id, i.invoice_id, i.from_balance
    UNION ALL
    SELECT i.customer_id, i.invoice_id, 'excess', COALESCE(sum(t.amount), 0), i.excess
    FROM invoice AS i
    LEFT JOIN ledger_transfer AS t ON t.customer_id = i.customer_id
        AND t.source_id = i.invoice_id AND t.kind = 'excess'
    WHERE i.excess <> 0
    GROUP BY i.customer_id, i.invoice_id, i.excess
    UNION ALL
    SELECT n.customer_id, n.credit_note_id, 'total of credit note',
        COALESCE(c.amount, 0) + COALESCE(t.beside, 0), n.total
    FROM credit_note AS n
    LEFT JOIN (
        SELECT customer_id, credit_note_id, sum(amount - discount) AS amount
        FROM credit_note_line GROUP BY customer_id, credit_note_id
    ) AS c ON c.customer_id = n.customer_id AND c.credit_note_id = n.credit_note_id
    LEFT JOIN (
        SELECT customer_id, credit_note_id, sum(tax) AS beside
        FROM credit_note_tax WHERE NOT inclusive GROUP BY customer_id, credit_note_id
    ) AS t ON t.customer_id = n.customer_id AND t.credit_note_id = n.credit_note_id
    UNION ALL
    SELECT l.customer_id, l.invoice_id,
        'credit of the discount of line ' || l.line_number::text, l.discount,
        COALESCE(c.discount, 0)
    FROM invoice_line AS l
    JOIN (
        SELECT customer_id, invoice_id, invoice_line, sum(discount) AS discount
        FROM credit_note_line GROUP BY customer_id, invoice_id, invoice_line
    ) AS c ON c.customer_id = l.customer_id AND c.invoice_id = l.invoice_id
        AND c.invoice_line = l.line_number
    WHERE abs(c.discount) > abs(l.discount)
    UNION ALL
    SELECT n.customer_id, n.credit_note_id, 'rest of credit note', n.total - n.applied,
        COALESCE(sum(t.amount), 0)
    FROM credit_note AS n
    LEFT JOIN ledger_transfer AS t ON t.customer_id = n.customer_id
        AND t.source_id = n.credit_note_id AND t.credit_account = 'customer_credit'
    GROUP BY n.customer_id, n.credit_note_id, n.total, n.applied
    UNION ALL
    SELECT l.customer_id, l.invoice_id, 'credit of line ' || l.line_number::text, l.amount,
        COALESCE(c.amount, 0)
    FROM invoice_line AS l
    JOIN (
        SELECT customer_id, invoice_id, invoice_line, sum(amount) AS amount
        FROM credit_note_line GROUP BY customer_id, invoice_id, invoice_line
    ) AS c ON c.customer_id = l.customer_id AND c.invoice_id = l.invoice_id
        AND c.invoice_line = l.line_number
    WHERE abs(c.amount) > abs(l.amount)
) AS sums
WHERE expected <> found
ORDER BY customer_id, document_id
LIMIT 100;

-- name: save_terms!
-- Agree on how a customer pays.
INSERT INTO billing_terms AS t (customer_id, collection, net_days, updated_at)
VALUES (:customer_id, :collection, :net_days, :updated_at)
ON CONFLICT (customer_id) DO UPDATE
    SET collection = excluded.collection, net_days = excluded.net_days,
        updated_at = excluded.updated_at;

-- name: list_terms
-- How these customers pay, those with other than the usual terms.
SELECT customer_id, collection, net_days FROM billing_terms
WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: page_documents
-- A customer's invoices and credit notes behind a moment and id, in their order.
SELECT at, entry_id, what, series, year, number, status, currency, total, invoice_id
FROM (
    SELECT finalized_at AS at, invoice_id AS entry_id, 'invoice' AS what, series, year, number,
        status, currency, total, invoice_id
    FROM invoice
    WHERE customer_id = :customer_id
    UNION ALL
    SELECT finalized_at, credit_note_id, 'credit_note', series, year, number, kind, currency,
        total, invoice_id
    FROM credit_note
    WHERE customer_id = :customer_id
) AS document
WHERE (:after_at::timestamptz IS NULL OR (at, entry_id) > (:after_at, :after_id::uuid))
ORDER BY at, entry_id
LIMIT :limit;

-- name: list_past_lines
-- What documents billed of each charge and took back, in the order in which they were written. A
-- run's own notes say that they are a credit; any other was written by hand.
SELECT customer_id, at, boundary_at, item_id, period_start, kind, dimensions, quantity, reason,
    by_hand
FROM (
    SELECT l.customer_id, i.finalized_at AS at, i.boundary_at, l.item_id, l.period_start, l.kind,
        l.dimensions, l.quantity, l.reason, false AS by_hand
    FROM invoice_line AS l
    JOIN invoice AS i ON i.customer_id = l.customer_id AND i.invoice_id = l.invoice_id
    WHERE l.customer_id = ANY(:customer_ids::uuid[])
    UNION ALL
    SELECT n.customer_id, n.finalized_at, NULL, l.item_id, l.period_start, l.kind, l.dimensions,
        -c.quantity, n.reason, n.kind = 'concession' OR n.reason NOT LIKE 'credit: %%'
    FROM credit_note AS n
    JOIN credit_note_line AS c ON c.customer_id = n.customer_id
        AND c.credit_note_id = n.credit_note_id
    JOIN invoice_line AS l ON l.customer_id = c.customer_id AND l.invoice_id = c.invoice_id
        AND l.line_number = c.invoice_line
    WHERE n.customer_id = ANY(:customer_ids::uuid[])
) AS document
ORDER BY customer_id, at, boundary_at;

-- name: sum_documents
-- What the documents of a time bill each customer: invoices by their boundary, less corrections.
SELECT customer_id, sum(net)::bigint AS net, sum(tax)::bigint AS tax
FROM (
    SELECT customer_id, total - tax AS net, tax
    FROM invoice
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND boundary_at >= :since
        AND boundary_at < :until
    UNION ALL
    SELECT customer_id, tax - total, -tax
    FROM credit_note
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND kind = 'correction'
        AND finalized_at >= :since AND finalized_at < :until
) AS document
GROUP BY customer_id;
