"""Choice of the device."""

import torch

from mynah.utility.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def check_device(device: str) -> None:
    """Raise UserError for a --device that is unknown or not here."""
    if device not in DEVICES:
        raise UserError(f"--device {device}: expected {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
