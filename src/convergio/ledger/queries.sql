-- name: copy_transfers
-- Load transfers in bulk; the table's own checks hold amount > 0 and two different accounts.
COPY ledger_transfer (customer_id, transfer_id, kind, source_id, debit_account, credit_account,
    amount, currency, occurred_at) FROM STDIN (FORMAT BINARY);

-- name: sum_balance
-- Debits less credits of one customer's account, in minor units.
SELECT COALESCE(sum(CASE WHEN debit_account = :account THEN amount ELSE -amount END), 0)::bigint
FROM ledger_transfer
WHERE customer_id = :customer_id AND currency = :currency
    AND (debit_account = :account OR credit_account = :account);

-- name: sum_totals
-- Debits less credits of every account over all customers, in minor units.
SELECT account, currency, sum(amount)::numeric AS amount
FROM (
    SELECT debit_account AS account, currency, amount FROM ledger_transfer
    UNION ALL
    SELECT credit_account, currency, -amount FROM ledger_transfer
) AS side
GROUP BY account, currency
ORDER BY account, currency;

-- name: sum_by_source
-- What each source posted, for a page of customers.
SELECT customer_id, source_id, debit_account, credit_account, currency,
    sum(amount)::bigint AS amount
FROM ledger_transfer
WHERE customer_id = ANY(:customer_ids::uuid[]) AND kind = :kind
GROUP BY customer_id, source_id, debit_account, credit_account, currency
ORDER BY customer_id, source_id, debit_account, credit_account;

-- name: find_strange
-- Transfers that name an account this version does not know, or a second currency of a customer.
SELECT t.customer_id, t.transfer_id, t.debit_account, t.credit_account, t.currency
FROM ledger_transfer AS t
WHERE NOT (t.debit_account = ANY(:accounts::text[]) AND t.credit_account = ANY(:accounts::text[]))
    OR EXISTS (SELECT 1 FROM ledger_transfer AS o
        WHERE o.customer_id = t.customer_id AND o.currency < t.currency)
ORDER BY t.customer_id, t.transfer_id
LIMIT 100;

-- name: sum_customer_credit
-- What the seller owes each of these customers and currency that has a credit balance.
SELECT customer_id, currency,
    sum(CASE WHEN credit_account = 'customer_credit' THEN amount ELSE -amount END)::bigint
        AS amount
FROM ledger_transfer
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND (debit_account = 'customer_credit' OR credit_account = 'customer_credit')
GROUP BY customer_id, currency;

-- name: find_overdrawn
-- Customers who were paid more from their credit balance than it held.
SELECT customer_id, currency,
    sum(CASE WHEN credit_account = 'customer_credit' THEN amount ELSE -amount END)::bigint
        AS amount
FROM ledger_transfer
WHERE debit_account = 'customer_credit' OR credit_account = 'customer_credit'
GROUP BY customer_id, currency
HAVING sum(CASE WHEN credit_account = 'customer_credit' THEN amount ELSE -amount END) < 0
ORDER BY customer_id
LIMIT 100;
