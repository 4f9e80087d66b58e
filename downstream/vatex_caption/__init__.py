"""Video captioning on VATEX, or on any videos with captions: SwinBERT's decoder on an upstream's features."""
