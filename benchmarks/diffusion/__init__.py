"""What a diffusion step takes, how exact it is, and what it leaves to answers: the stages of `engine.py`."""
