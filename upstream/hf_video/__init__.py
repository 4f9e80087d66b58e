"""Video encoders of Hugging Face as upstreams."""
