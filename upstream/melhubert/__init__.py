"""MelHuBERT."""
