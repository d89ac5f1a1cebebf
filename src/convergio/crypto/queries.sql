-- name: find_data_keys
-- Every version of one owner's data key.
SELECT customer_id, key_version, kek_id, wrapped
FROM data_key
WHERE customer_id = :customer_id
ORDER BY key_version;

-- name: find_many_data_keys
-- Every version of many owners' data keys.
SELECT customer_id, key_version, kek_id, wrapped
FROM data_key
WHERE customer_id = ANY(:customer_ids::uuid[])
ORDER BY customer_id, key_version;

-- name: insert_data_key!
-- Keep a first data key; a row that another transaction made meanwhile stays.
INSERT INTO data_key (customer_id, key_version, kek_id, wrapped, created_at)
VALUES (:customer_id, :key_version, :kek_id, :wrapped, :now)
ON CONFLICT (customer_id, key_version) DO NOTHING;

-- name: find_retention_keys
-- Every version of the key for what tax law keeps.
SELECT NULL::uuid AS customer_id, key_version, kek_id, wrapped
FROM retention_key
ORDER BY key_version;

-- name: insert_retention_key!
-- Keep a first retention key; a row that another transaction made meanwhile stays.
INSERT INTO retention_key (key_version, kek_id, wrapped, created_at)
VALUES (:key_version, :kek_id, :wrapped, :now)
ON CONFLICT (key_version) DO NOTHING;

-- name: find_data_keys_to_rewrap
-- Data keys that an older key-encryption key wraps.
SELECT customer_id, key_version, kek_id, wrapped
FROM data_key
WHERE kek_id <> :kek_id
ORDER BY customer_id, key_version
LIMIT :size_max;

-- name: find_retention_keys_to_rewrap
-- Retention keys that an older key-encryption key wraps.
SELECT NULL::uuid AS customer_id, key_version, kek_id, wrapped
FROM retention_key
WHERE kek_id <> :kek_id
ORDER BY key_version
LIMIT :size_max;

-- name: rewrap_data_key!
-- Keep the same data key under another key-encryption key, unless someone else just did.
UPDATE data_key
SET kek_id = :kek_id, wrapped = :wrapped
WHERE customer_id = :customer_id AND key_version = :key_version AND kek_id = :old_kek_id;

-- name: rewrap_retention_key!
-- Keep the same retention key under another key-encryption key, unless someone else just did.
UPDATE retention_key
SET kek_id = :kek_id, wrapped = :wrapped
WHERE key_version = :key_version AND kek_id = :old_kek_id;
