"""Features for a task: run the upstream, choose among its hidden states, remember what cannot change."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from downstream.interfaces import FeaturesConfig
from utility.errors import UserError

GIB = 2**30

States = tuple[Tensor, ...]


class Featurizer(nn.Module):
    """Hidden states -> the features that a task receives.

    A learned weighted sum of all hidden states (Yang et al. 2021, SUPERB, sec. 3), one of them, or the last.
    """

    def __init__(self, num_hidden_states: int, config: FeaturesConfig):
        super().__init__()
        self.normalize = config.normalize
        self.layers = _chosen_layers(num_hidden_states, config)
        self.weights = nn.Parameter(torch.zeros(len(self.layers))) if len(self.layers) > 1 else None

    def select(self, hidden_states: Sequence[Tensor]) -> States:
        """Of all hidden states those that are used; the rest need not be kept."""
        return tuple(hidden_states[layer] for layer in self.layers)

    def forward(self, states: States) -> Tensor:
        """states: what `select` returned, each (B, N, D) -> (B, N, D)."""
        if self.normalize:
            states = tuple(F.layer_norm(state, state.shape[-1:]) for state in states)
        if self.weights is None:
            return states[0]
        weights = self.weights.softmax(0)
        return sum(weight * state for weight, state in zip(weights, states, strict=True))


class UpstreamFeatures(nn.Module):
    """Signals -> the hidden states that the featurizer selects, by a frozen or a trained upstream.

    Frozen means: in `eval()`, without gradients, and with the states of signals that come unchanged in every pass
    kept in memory up to `cache_gib`. A signal whose states are kept is run through the upstream alone, so that
    what is kept does not depend (in the last bit) on the batch in which it was first met.
    """

    def __init__(self, upstream: nn.Module, featurizer: Featurizer, fine_tune: bool, cache_gib: float = 0.0):
        super().__init__()
        self.upstream, self.featurizer, self.fine_tune = upstream, featurizer, fine_tune
        self.upstream.requires_grad_(fine_tune).train(fine_tune)  # Lightning keeps the modes that it finds
        self.room = 0 if fine_tune else int(cache_gib * GIB)
        self.kept: dict[str, States] = {}

    def train(self, mode: bool = True) -> "UpstreamFeatures":
        super().train(mode)
        self.upstream.train(mode and self.fine_tune)
        return self

    def forward(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """signals: B waveforms; keys: a name for each that is the same in every pass, None for one that is not.

        Returns (B, N, D) features with zeros in padded positions, and (B,) int64 lengths.
        """
        with torch.set_grad_enabled(self.fine_tune and torch.is_grad_enabled()):
            states, lengths = self._states(signals, keys)
        return self.featurizer(states), lengths

    def _states(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[States, Tensor]:
        device = self.upstream.device
        if not self.room and not self.kept:
            return self._run(signals)
        rows: dict[int, States] = {}
        fresh = []
        for index, (signal, key) in enumerate(zip(signals, keys, strict=True)):
            if key in self.kept:
                rows[index] = tuple(state.to(device, non_blocking=True) for state in self.kept[key])
            elif key is not None and self.room > 0:
                states, _ = self._run([signal])
                rows[index] = tuple(state[0] for state in states)
                self._keep(key, rows[index])
            else:
                fresh.append(index)
        if fresh:
            states, lengths = self._run([signals[index] for index in fresh])
            for row, index in enumerate(fresh):
                rows[index] = tuple(state[row, : lengths[row]] for state in states)
        ordered = [rows[index] for index in range(len(signals))]
        lengths = torch.tensor([len(states[0]) for states in ordered], device=device)
        return tuple(pad_sequence(list(layer), batch_first=True) for layer in zip(*ordered, strict=True)), lengths

    def _run(self, signals: Sequence[Tensor]) -> tuple[States, Tensor]:
        output = self.upstream(signals)
        return self.featurizer.select(output["hidden_states"]), output["lengths"]

    def _keep(self, key: str, states: States) -> None:
        size = sum(state.nbytes for state in states)
        if size > self.room:
            self.room = 0  # full: what comes from now on is computed every time, in batches
            return
        self.kept[key] = tuple(state.cpu() for state in states)
        self.room -= size


def _chosen_layers(num_hidden_states: int, config: FeaturesConfig) -> list[int]:
    if config.selection == "last_hidden_state":
        return [num_hidden_states - 1]
    if config.layer is None:
        return list(range(num_hidden_states))
    if not -num_hidden_states <= config.layer < num_hidden_states:
        raise UserError(
            f"features.layer (-l): {config.layer} is not one of the upstream's {num_hidden_states} hidden states, "
            f"0 to {num_hidden_states - 1}"
        )
    return [config.layer % num_hidden_states]
