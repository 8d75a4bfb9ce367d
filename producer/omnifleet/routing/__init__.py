"""Which model does a job, and so which queue it goes to."""
