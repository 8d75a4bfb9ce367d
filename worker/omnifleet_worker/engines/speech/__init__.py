"""What all engines of models share that speak a text as a whole."""
