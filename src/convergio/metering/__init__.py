"""Usage: the event, once for ever, and the one number that everybody reads.

An event, the totals that it moves and the quota that it uses change in one transaction. Windows
open at first use from the customer's schedule (docs/adr/0002), and their version tells a writer
whose cache is stale to look again.
"""
