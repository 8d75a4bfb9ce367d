"""What happens to every request before FastAPI sees it: telemetry outside, the gate inside."""
