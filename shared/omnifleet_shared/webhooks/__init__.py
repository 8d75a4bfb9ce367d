"""Callbacks: where they may go, how they are signed, and the outbox that keeps them."""
