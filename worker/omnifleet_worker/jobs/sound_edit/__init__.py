"""Edits of sounds: what is added, removed, extracted or turned into another, at its source's level and place."""
