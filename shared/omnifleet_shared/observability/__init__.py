"""Traces, and the small HTTP server behind metrics and probes."""
