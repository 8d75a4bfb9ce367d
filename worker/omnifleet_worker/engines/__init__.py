"""Engines: how a worker runs one kind of model. One module an engine; what it needs is imported when it is chosen."""
