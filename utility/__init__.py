"""What upstreams and downstreams share, a package a subject; it knows neither side."""

LAYERS = (
    "errors",
    "storage",
    "configuration",
    "nn",
    "data",
    "audio",
    "video",
    "experiments",
    "training",
    "evaluation",
    "demo",
    "albert",
    "captions",
    "acoustic",
)
"""The order of imports: a package imports only itself and those before it (`tests/test_structure.py`)."""
