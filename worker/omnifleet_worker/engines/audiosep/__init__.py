"""AudioSep, from a clone of its published code that runs in a process and an environment of its own."""
