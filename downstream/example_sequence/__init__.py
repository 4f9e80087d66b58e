"""The template for a new task on sequences."""
