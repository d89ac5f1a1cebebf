-- Structured addresses, tax numbers and routes of e-invoices.

-- `sealed_postal` and `sealed_routing` are small JSON objects, each sealed as one: an address is
-- read, corrected and erased as a whole, and so is the way to reach a customer's e-invoices.
-- `tax_exempt` is a decision of the seller, `tax_id_verified_at` a fact; neither names anybody.
ALTER TABLE customer
    ADD COLUMN sealed_postal bytea,
    ADD COLUMN sealed_routing bytea,
    ADD COLUMN tax_exempt text COLLATE "C" CHECK (tax_exempt IN ('exempt', 'reverse_charge')),
    ADD COLUMN tax_exempt_reason text,
    ADD COLUMN tax_id_verified_at timestamptz;
