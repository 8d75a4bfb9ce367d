"""The fleet's queue in Redis: messages under leases, what is submitted, counted and set aside."""
