"""May this customer do this now? Decide and count in one step.

A quota is a reservation: reserve, then commit what was really used, or release. The check and the
count are the same conditional update of the row that everybody reads, so a hard limit is exact
under any number of callers.
"""
