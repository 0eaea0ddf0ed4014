"""Text generation: prefill, decode steps, sampling, scoring and saved states."""
