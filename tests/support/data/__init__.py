"""Files, folders and records that tests make on the spot."""
