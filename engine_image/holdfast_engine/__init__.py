"""The engine: an OpenAI-compatible server over a continuous-batching pipeline."""
