-- Answers kept for retried requests.
SELECT 1;
