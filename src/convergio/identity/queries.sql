-- name: insert_api_key!
-- Keep a new key: its hash and what may be shown of it.
INSERT INTO api_key (
    api_key_id, name, prefix, last_four, key_hash, scopes, customer_id, created_at, expires_at)
VALUES (
    :api_key_id, :name, :prefix, :last_four, :key_hash, :scopes::text[], :customer_id, :created_at,
    :expires_at);

-- name: find_api_key_by_hash^
-- The key that was presented, dead or alive.
SELECT api_key_id, name, prefix, last_four, scopes, customer_id, created_at, expires_at, revoked_at
FROM api_key
WHERE key_hash = :key_hash;

-- name: find_api_key^
-- One key by its id.
SELECT api_key_id, name, prefix, last_four, scopes, customer_id, created_at, expires_at, revoked_at
FROM api_key
WHERE api_key_id = :api_key_id;

-- name: find_api_keys
-- Keys in the order of their making, a page at a time.
SELECT api_key_id, name, prefix, last_four, scopes, customer_id, created_at, expires_at, revoked_at
FROM api_key
WHERE (:after::uuid IS NULL OR api_key_id > :after)
    AND (:customer_id::uuid IS NULL OR customer_id = :customer_id)
ORDER BY api_key_id
LIMIT :size_max;

-- name: revoke_api_key!
-- End a key once; the first time stays.
UPDATE api_key
SET revoked_at = :now
WHERE api_key_id = :api_key_id AND revoked_at IS NULL;
