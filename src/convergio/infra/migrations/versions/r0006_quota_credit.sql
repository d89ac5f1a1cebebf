-- Prepaid grants, limits per seat, authorizations that are asked twice.
SELECT 1;
