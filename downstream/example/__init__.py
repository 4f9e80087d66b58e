"""The template for a new task."""
