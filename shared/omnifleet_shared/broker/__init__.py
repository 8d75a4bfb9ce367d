"""The fleet's queue in Redis: leased messages, submissions, attempts, dead letters, statistics and workers."""
