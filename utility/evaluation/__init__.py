"""Metrics, tables and pictures of predictions that several tasks share.

What one task alone needs stands in its folder.
"""
