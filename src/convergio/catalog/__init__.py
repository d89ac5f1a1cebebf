"""Catalog: what is measured and what is sold, as one file that is the truth."""
