-- name: insert_coupon
-- Keep a coupon; nothing returns where its code is taken.
INSERT INTO coupon (coupon_id, code, name, percent, amount, currency, duration, periods, plans,
    prices, redeem_by, limit_in_all, limit_customer, created_at)
VALUES (:coupon_id, :code, :name, :percent, :amount, :currency, :duration, :periods,
    :plans::text[], :prices::text[], :redeem_by, :limit_in_all, :limit_customer, :created_at)
ON CONFLICT (code) DO NOTHING
RETURNING coupon_id;

-- name: find_coupon
-- The coupon with a code.
SELECT coupon_id, code, name, percent, amount, currency, duration, periods, plans, prices,
    redeem_by, limit_in_all, limit_customer, redeemed, created_at, archived_at
FROM coupon WHERE code = :code;

-- name: page_coupons
-- The next coupons in the order of their making.
SELECT coupon_id, code, name, percent, amount, currency, duration, periods, plans, prices,
    redeem_by, limit_in_all, limit_customer, redeemed, created_at, archived_at
FROM coupon
WHERE :after::uuid IS NULL OR coupon_id > :after::uuid
ORDER BY coupon_id
LIMIT :limit;

-- name: archive_coupon!
-- Take a coupon off offer; what was redeemed goes on.
UPDATE coupon SET archived_at = :archived_at WHERE coupon_id = :coupon_id AND archived_at IS NULL;

-- name: take_coupon
-- Count one more redemption, unless all are gone; the row is held until the transaction ends.
UPDATE coupon SET redeemed = redeemed + 1
WHERE coupon_id = :coupon_id AND archived_at IS NULL
    AND (limit_in_all IS NULL OR redeemed < limit_in_all)
RETURNING coupon_id;

-- name: count_redeemed$
-- How often a customer redeemed a coupon.
SELECT count(*) FROM coupon_redemption
WHERE customer_id = :customer_id AND coupon_id = :coupon_id;

-- name: insert_redemption!
-- Keep a redemption.
INSERT INTO coupon_redemption (customer_id, redemption_id, coupon_id, redeemed_at, anchor_at,
    time_zone, interval, first_period, last_period, price_keys)
VALUES (:customer_id, :redemption_id, :coupon_id, :redeemed_at, :anchor_at, :time_zone,
    :interval, :first_period, :last_period, :price_keys::text[]);

-- name: list_redemptions
-- What these customers redeemed, in the order of use.
SELECT r.customer_id, r.redemption_id, r.coupon_id, c.code, c.name, c.percent, c.amount,
    c.currency, r.redeemed_at, r.anchor_at, r.time_zone, r.interval, r.first_period,
    r.last_period, r.price_keys
FROM coupon_redemption AS r
JOIN coupon AS c ON c.coupon_id = r.coupon_id
WHERE r.customer_id = ANY(:customer_ids::uuid[])
ORDER BY r.customer_id, r.redeemed_at, r.redemption_id;

-- name: list_drawn
-- What redemptions of these customers took off each period number, less what was returned.
SELECT redemption_id, period_number, sum(amount - returned)::bigint AS amount
FROM coupon_draw
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY redemption_id, period_number;

-- name: page_granted
-- The next customers of whom promotional credit was drawn, for `verify`.
SELECT DISTINCT customer_id FROM credit_grant_draw
WHERE customer_id > :after::uuid
ORDER BY customer_id
LIMIT :limit;

-- name: list_granted
-- What these customers' grants took off lines, less what was returned.
SELECT grant_id, sum(amount - returned)::bigint AS amount
FROM credit_grant_draw
WHERE customer_id = ANY(:customer_ids::uuid[])
GROUP BY grant_id
HAVING sum(amount - returned) <> 0;

-- name: copy_coupon_draws!
-- Load what redemptions took off lines, and what lines that take back returned of it.
COPY coupon_draw (customer_id, redemption_id, invoice_id, line_number, period_number, amount,
    origin_invoice_id, origin_line) FROM STDIN;

-- name: copy_grant_draws!
-- Load what grants took off lines, and what lines that take back returned of it.
COPY credit_grant_draw (customer_id, grant_id, invoice_id, line_number, amount,
    origin_invoice_id, origin_line) FROM STDIN;

-- name: return_coupon_draws!
-- Count what a credit note that corrects gave back of what redemptions took off lines.
UPDATE coupon_draw AS d SET returned = d.returned + n.amount, returned_at = :returned_at
FROM unnest(:customer_ids::uuid[], :source_ids::uuid[], :invoice_ids::uuid[],
    :line_numbers::int[], :amounts::bigint[])
    AS n (customer_id, redemption_id, invoice_id, line_number, amount)
WHERE d.customer_id = n.customer_id AND d.redemption_id = n.redemption_id
    AND d.invoice_id = n.invoice_id AND d.line_number = n.line_number;

-- name: return_grant_draws!
-- Count what a credit note that corrects gave back of what grants took off lines.
UPDATE credit_grant_draw AS d SET returned = d.returned + n.amount, returned_at = :returned_at
FROM unnest(:customer_ids::uuid[], :source_ids::uuid[], :invoice_ids::uuid[],
    :line_numbers::int[], :amounts::bigint[])
    AS n (customer_id, grant_id, invoice_id, line_number, amount)
WHERE d.customer_id = n.customer_id AND d.grant_id = n.grant_id
    AND d.invoice_id = n.invoice_id AND d.line_number = n.line_number;

-- name: list_taken
-- What redemptions and grants took off each line of these customers and did not get back, and what
-- lines that take back returned.
SELECT invoice_id, line_number, source_id, period_number, sum(amount)::bigint AS amount
FROM (
    SELECT COALESCE(origin_invoice_id, invoice_id) AS invoice_id,
        COALESCE(origin_line, line_number) AS line_number, redemption_id AS source_id,
        period_number, amount - returned AS amount
    FROM coupon_draw
    WHERE customer_id = ANY(:customer_ids::uuid[])
    UNION ALL
    SELECT COALESCE(origin_invoice_id, invoice_id), COALESCE(origin_line, line_number), grant_id,
        NULL, amount - returned
    FROM credit_grant_draw
    WHERE customer_id = ANY(:customer_ids::uuid[])
    UNION ALL
    SELECT invoice_id, line_number, redemption_id, period_number, amount - returned
    FROM coupon_draw
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND origin_line IS NOT NULL
    UNION ALL
    SELECT invoice_id, line_number, grant_id, NULL, amount - returned
    FROM credit_grant_draw
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND origin_line IS NOT NULL
) AS every
GROUP BY invoice_id, line_number, source_id, period_number
HAVING sum(amount) <> 0
ORDER BY invoice_id, line_number, period_number, source_id;

-- name: list_returned
-- What credit notes gave back of the discount of each line of these customers.
SELECT invoice_id, line_number, sum(returned)::bigint AS amount
FROM (
    SELECT invoice_id, line_number, returned FROM coupon_draw
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND returned <> 0
    UNION ALL
    SELECT invoice_id, line_number, returned FROM credit_grant_draw
    WHERE customer_id = ANY(:customer_ids::uuid[]) AND returned <> 0
) AS every
GROUP BY invoice_id, line_number;

-- name: list_draws
-- What took something off the lines of an invoice: coupons by their code, then grants.
SELECT d.line_number, c.code, d.amount
FROM coupon_draw AS d
JOIN coupon_redemption AS r
    ON r.customer_id = d.customer_id AND r.redemption_id = d.redemption_id
JOIN coupon AS c ON c.coupon_id = r.coupon_id
WHERE d.customer_id = :customer_id AND d.invoice_id = :invoice_id
UNION ALL
SELECT line_number, NULL, sum(amount)::bigint
FROM credit_grant_draw
WHERE customer_id = :customer_id AND invoice_id = :invoice_id
GROUP BY line_number
ORDER BY 1, 2;

-- name: list_drawn_lines
-- What was taken off each line of these customers.
SELECT invoice_id, line_number, sum(amount)::bigint AS amount
FROM (
    SELECT invoice_id, line_number, amount FROM coupon_draw
    WHERE customer_id = ANY(:customer_ids::uuid[])
    UNION ALL
    SELECT invoice_id, line_number, amount FROM credit_grant_draw
    WHERE customer_id = ANY(:customer_ids::uuid[])
) AS every
GROUP BY invoice_id, line_number;

-- name: find_overdrawn
-- Redemptions of which more was drawn for a period than there is, and coupons redeemed too often.
SELECT d.customer_id, d.redemption_id AS source_id, 'coupon' AS what, c.amount AS allowed,
    sum(d.amount - d.returned)::bigint AS drawn
FROM coupon_draw AS d
JOIN coupon_redemption AS r
    ON r.customer_id = d.customer_id AND r.redemption_id = d.redemption_id
JOIN coupon AS c ON c.coupon_id = r.coupon_id
WHERE c.amount IS NOT NULL
GROUP BY d.customer_id, d.redemption_id, d.period_number, c.amount
HAVING sum(d.amount - d.returned) > c.amount
LIMIT 100;

-- name: find_uncounted
-- Coupons that were redeemed more or less often than they say.
SELECT c.code, c.redeemed, count(r.redemption_id) AS found
FROM coupon AS c
LEFT JOIN coupon_redemption AS r ON r.coupon_id = c.coupon_id
GROUP BY c.code, c.redeemed
HAVING c.redeemed <> count(r.redemption_id)
LIMIT 100;
