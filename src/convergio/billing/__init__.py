"""Billing: what is owed less what is on invoices becomes the next invoice."""
