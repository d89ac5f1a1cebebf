-- name: insert_charge
-- Record a charge under its key, once: no row comes back when the key is taken.
INSERT INTO sandbox.charge (idempotency_key, reference, token, amount, currency, outcome,
    decline_code, fee, created_at)
VALUES (:idempotency_key, :reference, :token, :amount, :currency, :outcome,
    :decline_code, :fee, :created_at)
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING idempotency_key, reference, token, amount, currency, outcome, decline_code, fee,
    created_at;

-- name: find_charge
-- The charge of a key.
SELECT idempotency_key, reference, token, amount, currency, outcome, decline_code, fee, created_at
FROM sandbox.charge
WHERE idempotency_key = :idempotency_key;

-- name: settle_charge
-- End the wait for the customer: only a charge that still waits changes.
UPDATE sandbox.charge
SET outcome = :outcome, decline_code = :decline_code, fee = :fee
WHERE idempotency_key = :idempotency_key AND outcome = 'requires_action';
