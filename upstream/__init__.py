"""Upstream models, one folder each."""
