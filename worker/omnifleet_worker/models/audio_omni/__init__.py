"""Audio-Omni: thinker, diffusion transformer, autoencoder, and the pipeline over them."""
