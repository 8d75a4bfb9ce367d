"""What engines of models that work through recordings share, and those models: recognisers and separators."""
