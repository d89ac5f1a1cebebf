"""Coupons, and what they and promotional credit take off the lines of invoices, before tax."""
