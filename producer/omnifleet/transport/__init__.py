"""Transports of jobs to the fleet and of outcomes back: through Celery, for threads and for asyncio."""
