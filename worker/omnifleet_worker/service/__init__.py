"""The worker as a Celery service: consumer, deliveries, progress and webhooks."""
