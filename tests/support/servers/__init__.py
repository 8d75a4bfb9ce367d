"""Programs of users that fork or switch greenlets: a web application, a Celery app, a script under gevent."""
