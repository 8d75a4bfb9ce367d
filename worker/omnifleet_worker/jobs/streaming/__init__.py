"""Parts of streamed jobs, given out before the end."""
