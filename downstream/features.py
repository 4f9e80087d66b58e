"""Features for a task: run the upstream, choose among its hidden states, remember what cannot change."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.feature_cache import FeatureCache
from mynah.downstream.interfaces import FeaturesConfig
from mynah.utility.errors import UserError


class Featurizer(nn.Module):
    """Hidden states -> the features that a task receives.

    A learned weighted sum of all hidden states (Yang et al. 2021, SUPERB, sec. 3), one of them, or the last; with
    `reads_mean` that of their means over time, for a head that is linear up to its own mean: both commute.
    """

    def __init__(self, num_hidden_states: int, config: FeaturesConfig, reads_mean: bool = False):
        super().__init__()
        self.normalize, self.zeroed, self.reads_mean = config.normalize, config.zeroed, reads_mean
        self.layers = _chosen_layers(num_hidden_states, config)
        self.weights = nn.Parameter(torch.zeros(len(self.layers))) if len(self.layers) > 1 else None

    def select(self, hidden_states: Sequence[Tensor], lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What is used of all hidden states, (B, N, D) each with zeros in padded positions; lengths: (B,).

        Returns (K, B, N, D) and the lengths; with `reads_mean`, (K, B, 1, D) in float32 and ones. The rest need not
        be kept.
        """
        chosen = [hidden_states[layer] for layer in self.layers]
        if not self.reads_mean:
            return (torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]), lengths
        counts = lengths.to(chosen[0].device)[:, None, None]
        means = [self._normalized(state.float()).sum(1, keepdim=True) / counts for state in chosen]
        return torch.stack(means), torch.ones_like(lengths)

    def forward(self, states: Tensor) -> Tensor:
        """states: what `select` returned, (K, B, N, D) -> (B, N, D)."""
        if self.zeroed:
            return torch.zeros_like(states[0])
        if not self.reads_mean:
            states = self._normalized(states)
        if self.weights is None:
            return states[0]
        return weighted_sum(self.weights.softmax(0), states)

    def _normalized(self, states: Tensor) -> Tensor:
        return F.layer_norm(states, states.shape[-1:]) if self.normalize else states


def weighted_sum(weights: Tensor, states: Tensor) -> Tensor:
    """weights: (K,), states: (K, ...) -> (...), as one product of a vector and a matrix."""
    with torch.autocast(states.device.type, enabled=False):  # which would round float32 states
        return (weights.to(states.dtype) @ states.flatten(1)).view(states.shape[1:])


class UpstreamFeatures(nn.Module):
    """Signals -> the hidden states that the featurizer selects, by a frozen or a trained upstream.

    Frozen means: in `eval()`, without gradients, and with the states of signals that come unchanged in every pass
    kept in `cache`. Which signals may be kept depends on their keys alone, and those are run through the upstream one
    by one: in a batch they would differ in the last bits. So the features are the same to the last bit whenever a
    signal was first met, and a resumed run sees what the uninterrupted one saw.
    """

    def __init__(self, upstream: nn.Module, featurizer: Featurizer, fine_tune: bool):
        super().__init__()
        self.upstream, self.featurizer, self.fine_tune = upstream, featurizer, fine_tune
        self.upstream.requires_grad_(fine_tune).train(fine_tune)  # Lightning keeps the modes that it finds
        self.cache = FeatureCache()
        """Keeps nothing, until it is replaced by one that does, where the upstream is frozen."""

    def count_bytes(self, lengths: Iterable[int], bytes_per_value: int) -> int:
        """What the states of signals of these numbers of samples or frames take."""
        upstream, featurizer = self.upstream, self.featurizer
        counted = (1 if featurizer.reads_mean else upstream.count_positions(length) for length in lengths)
        return sum(counted) * upstream.hidden_size * len(featurizer.layers) * bytes_per_value

    def train(self, mode: bool = True) -> "UpstreamFeatures":
        super().train(mode)
        self.upstream.train(mode and self.fine_tune)
        return self

    def forward(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """signals: B waveforms or clips; keys: a name for each that is the same in every pass, else None.

        The signal of a key that is in the cache is not looked at. Returns (B, N, D) features with zeros in padded
        positions, and (B,) int64 lengths.
        """
        with torch.set_grad_enabled(self.fine_tune and torch.is_grad_enabled()):
            states, lengths = self._states(signals, keys)
        return self.featurizer(states), lengths

    def encode(self, signal: Tensor) -> tuple[Tensor, int]:
        """One signal -> (1, N, D), and the number of positions: N, or with means, where N is 1, those of the mean."""
        with torch.set_grad_enabled(self.fine_tune and torch.is_grad_enabled()):
            output = self._run_upstream([signal])
            states, _ = self.featurizer.select(output["hidden_states"], output["lengths"])
        return self.featurizer(states), int(output["lengths"][0])

    def _states(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """(K, B, N, D), (B,)"""
        rows: dict[int, Tensor] = {}
        fresh = []
        for index, (signal, key) in enumerate(zip(signals, keys, strict=True)):
            if not self.cache.keeps(key):
                fresh.append(index)
            elif (kept := self.cache.get(key)) is not None:
                rows[index] = kept
            else:
                rows[index] = self.cache.keep(key, self._run([signal])[0][:, 0])
        if not rows:
            return self._run(signals)
        if fresh:
            states, lengths = self._run([signals[index] for index in fresh])
            for row, (index, length) in enumerate(zip(fresh, lengths.tolist(), strict=True)):
                rows[index] = states[:, row, :length]
        return _padded([rows[index] for index in range(len(signals))], self.upstream.device)

    def _run(self, signals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        output = self._run_upstream(signals)
        return self.featurizer.select(output["hidden_states"], output["lengths"])

    def _run_upstream(self, signals: Sequence[Tensor]) -> dict[str, Any]:
        return self.upstream(signals, num_hidden_states=max(self.featurizer.layers) + 1)


def _padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """rows: B of (K, n, D) -> (K, B, N, D), float16 as float32, with zeros beyond the (B,) int64 lengths."""
    lengths = [row.shape[1] for row in rows]
    if len(set(lengths)) == 1:
        states = torch.stack([row.to(device, non_blocking=True) for row in rows], 1)
        return (states.float() if states.dtype == torch.float16 else states), torch.tensor(lengths, device=device)
    kinds = {torch.float32 if row.dtype == torch.float16 else row.dtype for row in rows}
    kind = kinds.pop() if len(kinds) == 1 else torch.float32
    num_states, _, size = rows[0].shape
    states = torch.zeros(num_states, len(rows), max(lengths), size, dtype=kind, device=device)
    for index, row in enumerate(rows):
        states[:, index, : row.shape[1]] = row.to(device, non_blocking=True)
    return states, torch.tensor(lengths, device=device)


def _chosen_layers(num_hidden_states: int, config: FeaturesConfig) -> list[int]:
    if config.selection == "last_hidden_state":
        return [num_hidden_states - 1]
    if config.layer is None:
        return list(range(num_hidden_states))
    if not -num_hidden_states <= config.layer < num_hidden_states:
        raise UserError(
            f"features.layer (-l): {config.layer} is not one of the upstream's {num_hidden_states} hidden states, "
            f"0 to {num_hidden_states - 1}, or -1 to {-num_hidden_states} from the last"
        )
    return [config.layer % num_hidden_states]
