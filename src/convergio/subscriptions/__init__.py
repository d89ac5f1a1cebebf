"""Subscriptions: which prices a customer is on, since when, and in which stored periods."""
