"""Image backbones of timm, frame by frame, as a video upstream."""
