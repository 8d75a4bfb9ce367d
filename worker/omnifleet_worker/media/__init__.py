"""Media in and out: untrusted bytes to arrays under limits, arrays to the formats of a result."""
