"""The record of every job's state, and the ways to wait for it."""
