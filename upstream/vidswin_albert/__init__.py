"""SwinBERT with ALBERT: Video Swin, and a transformer over captions and video tokens."""
