"""Speech encoders of Hugging Face as upstreams."""
