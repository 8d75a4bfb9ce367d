"""From the arguments of a call to a checked job record, with its media uploaded."""
