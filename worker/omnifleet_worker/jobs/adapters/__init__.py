"""Adapters that jobs name."""
