"""Speech recognition by CTC."""
