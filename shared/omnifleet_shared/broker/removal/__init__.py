"""Messages that leave a queue without a worker: purged on purpose, or taken away by other means."""
