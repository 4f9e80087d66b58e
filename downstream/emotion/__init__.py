"""Emotion recognition on the public corpora of acted and spoken emotions."""
