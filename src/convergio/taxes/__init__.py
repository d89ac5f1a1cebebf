"""What the seller must charge: where it is registered, the rates in force, whose number is checked.

The decision itself is pure and lives in `convergio.rating.taxing`.
"""
