"""What a finished job gave: text, audio and video, and how to save them."""
