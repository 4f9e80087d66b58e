"""A word in time on how long a run will take, measured on its first steps."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger("mynah")

MEASURED_STEPS, MEASURED_SECONDS = 20, 60.0
"""After so many steps, or so long, the pace is told; the first step, which warms up, does not count."""
LONG_DAYS = 4.0
UNITS = {"days": 1.0, "weeks": 7.0, "months": 30.4, "years": 365.0}
"""In days."""


class Pace(Callback):
    """Warns once where the steps that are left will take more than LONG_DAYS.

    shorter: what to give for a shorter run, such as "-c small"; "" where there is no such thing.
    """

    def __init__(self, shorter: str = "") -> None:
        self.shorter = shorter
        self.begun: tuple[int, float] | None = None
        self.told = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.begun, self.told = None, False

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step, now = trainer.global_step, time.monotonic()
        if self.told or step == 0:
            return
        if self.begun is None:
            self.begun = step, now
            return
        steps, seconds = step - self.begun[0], now - self.begun[1]
        if steps == 0 or (steps < MEASURED_STEPS and seconds < MEASURED_SECONDS):
            return
        self.told = True
        days = seconds / steps * (trainer.max_steps - step) / 86400
        if days > LONG_DAYS and trainer.is_global_zero:
            advice = f"; {self.shorter} is made for less" if self.shorter else ""
            log.warning(
                "at %.3g s a step the %d steps that are left take about %s%s",
                *(seconds / steps, trainer.max_steps - step, in_words(days), advice),
            )


def in_words(days: float) -> str:
    """Such as "5 months": a duration in the largest unit of which there are two."""
    unit = next((unit for unit in reversed(UNITS) if days >= 2 * UNITS[unit]), "days")
    return f"{days / UNITS[unit]:.0f} {unit}"
