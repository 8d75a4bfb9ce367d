"""Stand-ins of the broker tests."""
