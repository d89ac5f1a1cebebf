-- Tax, coupons and promotional credit.
SELECT 1;
