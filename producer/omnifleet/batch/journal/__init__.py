"""What became of every line of a batch, in a file or in object storage, and the lock that one process holds on it."""
