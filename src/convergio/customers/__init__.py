"""Accounts: who is billed, in which currency, and their personal data, sealed."""
