"""Models behind an OpenAI-compatible chat endpoint: black boxes that are asked over the network."""
