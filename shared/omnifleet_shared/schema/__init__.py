"""The records that travel: jobs, tasks, results, states, callbacks."""
