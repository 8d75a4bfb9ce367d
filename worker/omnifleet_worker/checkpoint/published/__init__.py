"""The published checkpoint: its files, its keys, and its code's prompts."""
