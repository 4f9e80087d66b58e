"""Speaker verification on VoxCeleb1 or on any folder of speaker folders."""
