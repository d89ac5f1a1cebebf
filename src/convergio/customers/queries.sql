-- name: insert_directory!
-- Give a key to an id; a key that is taken stays with its owner.
INSERT INTO customer_directory (customer_key, customer_id)
VALUES (:customer_key, :customer_id)
ON CONFLICT (customer_key) DO NOTHING;

-- name: find_ids
-- The ids of the keys that are known.
SELECT customer_key, customer_id
FROM customer_directory
WHERE customer_key = ANY(:customer_keys::text[]);

-- name: insert_customer!
-- Keep one customer with sealed personal data.
INSERT INTO customer (
    customer_id, customer_key, currency, country, locale, tax_exempt, tax_exempt_reason,
    tax_id_verified_at, sealed_name, sealed_email, sealed_address, sealed_tax_id, sealed_postal,
    sealed_routing, email_index, created_at, updated_at)
VALUES (
    :customer_id, :customer_key, :currency, :country, :locale, :tax_exempt, :tax_exempt_reason,
    :tax_id_verified_at, :sealed_name, :sealed_email, :sealed_address, :sealed_tax_id,
    :sealed_postal, :sealed_routing, :email_index, :created_at, :updated_at);

-- name: lock_customer^
-- One customer by id, held against other changes of it; what refers to it need not wait.
SELECT customer_id, customer_key, currency, country, locale, created_at, updated_at, tax_exempt,
    tax_exempt_reason, tax_id_verified_at
FROM customer
WHERE customer_id = :customer_id
FOR NO KEY UPDATE;

-- name: save_customer!
-- Keep what may change of a customer: not the key, not the currency.
UPDATE customer
SET country = :country, locale = :locale, tax_exempt = :tax_exempt,
    tax_exempt_reason = :tax_exempt_reason, tax_id_verified_at = :tax_id_verified_at,
    sealed_name = :sealed_name, sealed_email = :sealed_email, sealed_address = :sealed_address,
    sealed_tax_id = :sealed_tax_id, sealed_postal = :sealed_postal,
    sealed_routing = :sealed_routing, email_index = :email_index, updated_at = :updated_at
WHERE customer_id = :customer_id;

-- name: copy_customers!
-- Load new customers that have no personal data yet.
COPY customer (
    customer_id, customer_key, currency, country, locale, created_at, updated_at) FROM STDIN;

-- name: find_customer^
-- One customer by id.
SELECT customer_id, customer_key, currency, country, locale, created_at, updated_at, tax_exempt,
    tax_exempt_reason, tax_id_verified_at
FROM customer
WHERE customer_id = :customer_id;

-- name: find_customers
-- Customers in the order of their making, a page at a time.
SELECT customer_id, customer_key, currency, country, locale, created_at, updated_at, tax_exempt,
    tax_exempt_reason, tax_id_verified_at
FROM customer
WHERE (:after::uuid IS NULL OR customer_id > :after)
ORDER BY customer_id
LIMIT :size_max;

-- name: find_customers_by_email
-- Customers whose e-mail has this blind index.
SELECT customer_id, customer_key, currency, country, locale, created_at, updated_at, tax_exempt,
    tax_exempt_reason, tax_id_verified_at
FROM customer
WHERE email_index = :email_index
ORDER BY customer_id
LIMIT :size_max;

-- name: find_sealed^
-- One customer's personal data, sealed.
SELECT sealed_name, sealed_email, sealed_address, sealed_tax_id, email_index, sealed_postal,
    sealed_routing
FROM customer
WHERE customer_id = :customer_id;

-- name: list_customers
-- Many customers by id, in one read.
SELECT customer_id, customer_key, currency, country, locale, created_at, updated_at, tax_exempt,
    tax_exempt_reason, tax_id_verified_at
FROM customer
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id;

-- name: list_sealed
-- The sealed personal data of those of many customers who have any.
SELECT customer_id, sealed_name, sealed_email, sealed_address, sealed_tax_id, email_index,
    sealed_postal, sealed_routing
FROM customer
WHERE customer_id = ANY(:customer_ids::uuid[])
    AND num_nonnulls(
        sealed_name, sealed_email, sealed_address, sealed_tax_id, sealed_postal,
        sealed_routing) > 0
ORDER BY customer_id;
