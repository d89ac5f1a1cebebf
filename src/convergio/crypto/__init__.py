"""Keys and sealed fields: plaintext personal data exists in memory only.

A key-encryption key (KEK) that is never in the database wraps one data key a customer; a data key
seals that customer's fields. Destroy a data key, and what it sealed is gone from backups too.
"""
