-- Negotiated prices, prices by dimension, and the states of an invoice.
SELECT 1;
