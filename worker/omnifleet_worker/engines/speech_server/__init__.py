"""Engines of models that another server runs, which this worker asks over HTTP: one way to ask, a dialect a server."""
