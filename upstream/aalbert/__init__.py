"""Audio ALBERT."""
