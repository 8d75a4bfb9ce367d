"""The engine: many requests, one model. Scheduling knows no torch, the runner knows no queue."""
