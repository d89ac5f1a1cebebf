"""The client of Convergio Billing: httpx only, and nothing of the server."""
