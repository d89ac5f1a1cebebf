-- Structured addresses, tax numbers and routes of e-invoices.
SELECT 1;
