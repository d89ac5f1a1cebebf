"""Money, quantities, periods and errors: what every other room may import.

Standard library only. No clock, no randomness, no input or output: a function here gives
the same answer for the same arguments, for ever.
"""
