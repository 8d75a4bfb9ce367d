"""OpenAI's endpoints for audio, as its API reference has them: its clients work without a change."""
