"""What a worker shows of itself: health, metrics, its heartbeat, traces, and whose line a line of its log is."""
