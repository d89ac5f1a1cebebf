"""Payments: intent first, then the call, then the outcome; and the schedule that tries again."""
