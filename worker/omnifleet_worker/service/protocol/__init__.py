"""What Celery's messages, options and remote commands may ask of a worker, and what becomes of it."""
