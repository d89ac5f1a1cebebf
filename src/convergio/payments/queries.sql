-- name: clear_default_method
-- The customer's default stops being it, to make room for another.
UPDATE payment_method SET is_default = false WHERE customer_id = :customer_id AND is_default;

-- name: insert_method
-- Keep a gateway's token.
INSERT INTO payment_method (customer_id, payment_method_id, gateway, token, brand, last_four,
    is_default, refused_at, created_at)
VALUES (:customer_id, :payment_method_id, :gateway, :token, :brand, :last_four,
    :is_default, :refused_at, :created_at);

-- name: list_methods
-- A customer's methods, the default first, then the newest.
SELECT customer_id, payment_method_id, gateway, token, brand, last_four, is_default, refused_at,
    created_at
FROM payment_method
WHERE customer_id = :customer_id
ORDER BY is_default DESC, created_at DESC, payment_method_id;

-- name: find_usable_method
-- The method to charge: the default, unless it was refused for ever.
SELECT customer_id, payment_method_id, gateway, token, brand, last_four, is_default, refused_at,
    created_at
FROM payment_method
WHERE customer_id = :customer_id AND is_default AND refused_at IS NULL;

-- name: list_payable
-- Which of these customers have a method that can be charged.
SELECT customer_id FROM payment_method
WHERE customer_id = ANY(:customer_ids::uuid[]) AND is_default AND refused_at IS NULL;

-- name: find_method
-- One method, also one that is no longer the default.
SELECT customer_id, payment_method_id, gateway, token, brand, last_four, is_default, refused_at,
    created_at
FROM payment_method
WHERE customer_id = :customer_id AND payment_method_id = :payment_method_id;

-- name: refuse_method
-- A hard decline: this method is never charged again.
UPDATE payment_method SET refused_at = :refused_at
WHERE customer_id = :customer_id AND payment_method_id = :payment_method_id AND refused_at IS NULL;

-- name: insert_collections
-- Begin to collect invoices; those that are being collected already are left as they are.
INSERT INTO collection (customer_id, invoice_id, state, next_at)
SELECT i.customer_id, i.invoice_id, 'due', :next_at
FROM unnest(:customer_ids::uuid[], :invoice_ids::uuid[]) AS i (customer_id, invoice_id)
ON CONFLICT (customer_id, invoice_id) DO NOTHING;

-- name: page_settled
-- The next customers of whom a collection came to its end and whose invoice was settled since.
SELECT DISTINCT c.customer_id
FROM collection AS c
JOIN invoice AS i ON i.customer_id = c.customer_id AND i.invoice_id = c.invoice_id
WHERE c.state = 'exhausted' AND i.status IN ('paid', 'void') AND c.customer_id > :after::uuid
ORDER BY c.customer_id
LIMIT :size;

-- name: list_due
-- Collections whose time has come, a page in the order of customer and invoice.
SELECT customer_id, invoice_id
FROM collection
WHERE next_at <= :now AND (customer_id, invoice_id) > (:after_customer::uuid, :after_invoice::uuid)
ORDER BY customer_id, invoice_id
LIMIT :size;

-- name: list_collections
-- Everything that is or was collected from a customer.
SELECT customer_id, invoice_id, state, attempts, failures, first_failed_at, next_at
FROM collection
WHERE customer_id = :customer_id
ORDER BY invoice_id;

-- name: lock_collections
-- Everything that is or was collected from a customer, locked, so that their standing is one truth.
SELECT customer_id, invoice_id, state, attempts, failures, first_failed_at, next_at
FROM collection
WHERE customer_id = :customer_id
ORDER BY invoice_id
FOR UPDATE;

-- name: save_collection
-- The new state of a collection.
UPDATE collection
SET state = :state, attempts = :attempts, failures = :failures,
    first_failed_at = :first_failed_at, next_at = :next_at
WHERE customer_id = :customer_id AND invoice_id = :invoice_id;

-- name: insert_attempt
-- Write down the intent; the index on pending attempts refuses a second one for the same invoice.
INSERT INTO payment_attempt (customer_id, attempt_id, invoice_id, number, payment_method_id,
    gateway, amount, currency, state, made_at)
VALUES (:customer_id, :attempt_id, :invoice_id, :number, :payment_method_id,
    :gateway, :amount, :currency, :state, :made_at);

-- name: lock_attempt
-- One attempt, locked.
SELECT customer_id, attempt_id, invoice_id, number, payment_method_id, gateway, amount, currency,
    state, decline_code, gateway_reference, fee, made_at, settled_at
FROM payment_attempt
WHERE customer_id = :customer_id AND attempt_id = :attempt_id
FOR UPDATE;

-- name: save_attempt
-- The answer to an attempt.
UPDATE payment_attempt
SET state = :state, decline_code = :decline_code, gateway_reference = :gateway_reference,
    fee = :fee, settled_at = :settled_at
WHERE customer_id = :customer_id AND attempt_id = :attempt_id;

-- name: list_attempts
-- Every try for a customer's invoices, in their order.
SELECT customer_id, attempt_id, invoice_id, number, payment_method_id, gateway, amount, currency,
    state, decline_code, gateway_reference, fee, made_at, settled_at
FROM payment_attempt
WHERE customer_id = :customer_id
ORDER BY invoice_id, number;

-- name: list_pending
-- Attempts without a final answer that began by some instant, a page in the order of their ids.
SELECT customer_id, attempt_id, invoice_id, number, payment_method_id, gateway, amount, currency,
    state, decline_code, gateway_reference, fee, made_at, settled_at
FROM payment_attempt
WHERE state IN ('intent', 'unknown', 'requires_action') AND made_at <= :before
    AND (customer_id, attempt_id) > (:after_customer::uuid, :after_attempt::uuid)
ORDER BY customer_id, attempt_id
LIMIT :size;

-- name: page_customers
-- The next customers from whom anything was ever collected or received.
SELECT customer_id FROM collection WHERE customer_id > :after::uuid
UNION
SELECT customer_id FROM receipt WHERE customer_id > :after::uuid
ORDER BY customer_id
LIMIT :size;

-- name: list_succeeded
-- What succeeded, for a page of customers.
SELECT customer_id, attempt_id, invoice_id, gateway, amount, fee, currency
FROM payment_attempt
WHERE customer_id = ANY(:customer_ids::uuid[]) AND state = 'succeeded'
ORDER BY customer_id, attempt_id;

-- name: sum_succeeded
-- What succeeded in all, by currency.
SELECT currency, sum(amount)::bigint AS amount, sum(fee)::bigint AS fee
FROM payment_attempt
WHERE state = 'succeeded'
GROUP BY currency
ORDER BY currency;

-- name: find_stuck
-- Collections that nothing will ever move: no date, no pending attempt, and not at an end.
SELECT c.customer_id, c.invoice_id, c.state
FROM collection AS c
WHERE c.next_at IS NULL AND c.state IN ('due', 'requires_action', 'waiting_for_method')
    AND NOT EXISTS (SELECT 1 FROM payment_attempt AS a
        WHERE a.customer_id = c.customer_id AND a.invoice_id = c.invoice_id
            AND a.state IN ('intent', 'unknown', 'requires_action'))
ORDER BY c.customer_id, c.invoice_id
LIMIT 100;

-- name: insert_receipt
-- Enter money that came; a reference that is known already inserts nothing.
INSERT INTO receipt (customer_id, receipt_id, method, reference, amount, currency, received_on,
    invoice_id, recorded_at)
VALUES (:customer_id, :receipt_id, :method, :reference, :amount, :currency, :received_on,
    :invoice_id, :recorded_at)
ON CONFLICT (customer_id, method, reference) DO NOTHING;

-- name: find_receipt
-- The receipt of a reference.
SELECT customer_id, receipt_id, method, reference, amount, currency, received_on, invoice_id,
    recorded_at
FROM receipt
WHERE customer_id = :customer_id AND method = :method AND reference = :reference;

-- name: insert_receipt_part
-- What an invoice got of a receipt.
INSERT INTO receipt_part (customer_id, receipt_id, invoice_id, amount)
VALUES (:customer_id, :receipt_id, :invoice_id, :amount);

-- name: page_receipts
-- A customer's receipts, the oldest entry first.
SELECT customer_id, receipt_id, method, reference, amount, currency, received_on, invoice_id,
    recorded_at
FROM receipt
WHERE customer_id = :customer_id AND (:after::uuid IS NULL OR receipt_id > :after::uuid)
ORDER BY receipt_id
LIMIT :limit;

-- name: list_receipts
-- What came from these customers, receipt by receipt.
SELECT receipt_id, amount FROM receipt WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: list_receipt_parts
-- What invoices of these customers got of receipts.
SELECT invoice_id, amount FROM receipt_part WHERE customer_id = ANY(:customer_ids::uuid[]);

-- name: sum_receipts
-- What came in all.
SELECT currency, sum(amount)::bigint AS amount FROM receipt GROUP BY currency;

-- name: page_payments
-- What a customer paid, by card or otherwise, behind a moment and id, in its order.
SELECT at, entry_id, what, amount, currency, invoice_id
FROM (
    SELECT COALESCE(settled_at, made_at) AS at, attempt_id AS entry_id, gateway AS what, amount,
        currency, invoice_id
    FROM payment_attempt
    WHERE customer_id = :customer_id AND state = 'succeeded'
    UNION ALL
    SELECT recorded_at, receipt_id, method, amount, currency, invoice_id
    FROM receipt
    WHERE customer_id = :customer_id
) AS payment
WHERE (:after_at::timestamptz IS NULL OR (at, entry_id) > (:after_at, :after_id::uuid))
ORDER BY at, entry_id
LIMIT :limit;
