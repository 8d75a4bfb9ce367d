"""Training of the DiT: LoRA adapters and full fine-tuning. No part of a serving worker."""
