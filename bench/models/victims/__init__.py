"""Vision-language models that encoders are swapped into."""
