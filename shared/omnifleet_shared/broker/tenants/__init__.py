"""Tenants that share a fleet: whose job is next, and what each of them uses."""
