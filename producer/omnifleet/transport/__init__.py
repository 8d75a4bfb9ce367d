"""How jobs get to the fleet and outcomes back: through Celery, waiting in threads or in asyncio."""
