"""The ledger: every movement of money as a transfer, and the only place a balance is summed."""
