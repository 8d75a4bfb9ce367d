"""Pairs for training, mixed from recordings with tags."""
