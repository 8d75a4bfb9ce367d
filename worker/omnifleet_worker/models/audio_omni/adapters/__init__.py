"""Adapters of the transformer: low-rank parts beside its layers, of another adapter for each row of a batch."""
