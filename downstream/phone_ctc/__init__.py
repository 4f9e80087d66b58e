"""Phone recognition by CTC."""
