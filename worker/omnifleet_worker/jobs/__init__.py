"""A job's way through a worker: fetch, decode, ask the model, encode, store."""
