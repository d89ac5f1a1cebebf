"""Worlds to try the product in: real traces replayed, and made-up customers under their own clock.

Everything here goes through the same actions as an edge would call; nothing writes rows itself.
"""
