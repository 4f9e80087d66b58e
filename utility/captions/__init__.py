"""Captioned clips: annotation files, the corpus that they make, and the captions' scores.

Another caption format goes into `files`, another metric into `scores`.
"""
