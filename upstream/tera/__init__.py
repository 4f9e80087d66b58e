"""TERA."""
