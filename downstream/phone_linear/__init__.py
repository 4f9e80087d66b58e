"""Phones by frame."""
