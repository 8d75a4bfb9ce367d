"""The thinker (Qwen2.5-Omni): what it reads, hears and sees, and the answers it writes."""
