"""`make demo`: a whole fleet on one machine, without GPU, Redis server, MinIO or the real checkpoint."""
