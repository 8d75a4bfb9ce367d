"""Trains a checkpoint on sounds that are made here, and measures it: `make demo-checkpoint`, `make demo-measure`."""
