"""The world outside the domains: database, clock, ids, settings, jobs, log."""
