"""The template for a new task by frame."""
