"""Callbacks: the hosts that they may go to, their signatures, and the outbox that keeps them."""
