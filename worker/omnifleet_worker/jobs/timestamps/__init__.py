"""When the words and segments of recordings are said."""
