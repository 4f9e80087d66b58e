"""The masked acoustic model: a trunk, and an objective that predicts what was masked.

Audio ALBERT, Mockingjay and MelHuBERT are this model with different values in their `pretrain_config.yaml`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mynah.utility.acoustic.config import AcousticConfig
from mynah.utility.acoustic.masking import MaskPlan
from mynah.utility.acoustic.trunk import OBJECTIVE, AcousticTrunk
from mynah.utility.nn.encoder import initialize_weights
from mynah.utility.nn.precision import one_thread


class AcousticModel(AcousticTrunk):
    """Waveforms -> hidden states; with a mask plan, waveforms -> predictions of what was masked."""

    config: AcousticConfig

    def __init__(self, config: AcousticConfig):
        super().__init__(config)
        shape, objective = config.model, config.objective
        self.objective = objective.REGISTRY[objective.name](getattr(objective, objective.name), shape, self.features)
        self.objective.apply(lambda module: initialize_weights(module, shape.initializer_range))

    def fit(self, waveforms: Callable[[], Iterable[Tensor]], *, trunk: bool, objective: bool) -> None:
        """Measure the corpus and let the objective learn, before the first step of a new run.

        waveforms() -> (T,) float32 crops of training utterances in a random order that the seed decides, each read
        when it is asked for. trunk, objective: which of them are to, as weights of another run bring theirs. What is
        learned is the same for any number of threads and processes.
        """
        with one_thread(), torch.no_grad():
            if trunk:
                self.features.fit(waveforms)
            if objective:
                self.objective.fit(self.features, waveforms())

    def predict(self, wavs: Tensor, lengths: Tensor, plan: MaskPlan) -> tuple[Any, Any]:
        """The objective's predictions and targets at the positions that the plan masks.

        wavs: (B, T) float32, lengths: (B,) samples, plan: of (B, N) positions. The heads see these positions only.
        """
        with torch.no_grad():
            heard = self.features(wavs, lengths)
            content = self.features.stacked(heard, self.config.features.input)
            targets = self.objective.targets(self.features, heard, plan.chosen)
            del heard
        states, _, _ = self.encode(content, self.positions.count(lengths), plan)
        return self.objective(states[-1].flatten(0, 1)[plan.chosen]), targets

    def loss(self, wavs: Tensor, lengths: Tensor, plan: MaskPlan, num_masked: Tensor | None = None) -> Tensor:
        """The objective's () loss; `predict` says what the arguments are.

        num_masked: () what the sum over masked positions is divided by; None for their number in the batch.
        """
        predictions, targets = self.predict(wavs, lengths, plan)
        return self.objective.loss(predictions, targets, plan.target.sum() if num_masked is None else num_masked)

    def drop_training_parts(self) -> tuple[str, ...]:
        """Leave out what training alone needs; returns the beginnings of the names of the weights that go."""
        for part in self.objective.TRAINING_PARTS:
            setattr(self.objective, part, None)
        return tuple(f"{OBJECTIVE}{part}." for part in self.objective.TRAINING_PARTS)
