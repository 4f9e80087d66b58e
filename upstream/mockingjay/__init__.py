"""Mockingjay."""
