"""Hand-made features as upstreams: what a pretrained model has to beat."""
