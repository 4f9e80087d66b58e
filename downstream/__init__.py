"""Downstream tasks, one folder each."""
