"""What a worker keeps of named voices."""
