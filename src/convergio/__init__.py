"""Convergio Billing: meter, decide, rate, bill, collect and account, on one Postgres."""
