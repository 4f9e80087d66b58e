"""Features for a task: run the upstream, choose among its hidden states, remember what cannot change."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mynah.downstream.interfaces import FeaturesConfig
from mynah.utility.data.splits import hash_fraction
from mynah.utility.errors import UserError

GIB = 2**30

States = tuple[Tensor, ...]


class Featurizer(nn.Module):
    """Hidden states -> the features that a task receives.

    A learned weighted sum of all hidden states (Yang et al. 2021, SUPERB, sec. 3), one of them, or the last.
    """

    def __init__(self, num_hidden_states: int, config: FeaturesConfig):
        super().__init__()
        self.normalize, self.zeroed = config.normalize, config.zeroed
        self.layers = _chosen_layers(num_hidden_states, config)
        self.weights = nn.Parameter(torch.zeros(len(self.layers))) if len(self.layers) > 1 else None

    def select(self, hidden_states: Sequence[Tensor]) -> States:
        """Of all hidden states those that are used; the rest need not be kept."""
        return tuple(hidden_states[layer] for layer in self.layers)

    def forward(self, states: States) -> Tensor:
        """states: what `select` returned, each (B, N, D) -> (B, N, D)."""
        if self.zeroed:
            return torch.zeros_like(states[0])
        if self.normalize:
            states = tuple(F.layer_norm(state, state.shape[-1:]) for state in states)
        if self.weights is None:
            return states[0]
        weights = self.weights.softmax(0)
        return sum(weight * state for weight, state in zip(weights, states, strict=True))


class UpstreamFeatures(nn.Module):
    """Signals -> the hidden states that the featurizer selects, by a frozen or a trained upstream.

    Frozen means: in `eval()`, without gradients, and from `plan` to `forget` with the states of signals that come
    unchanged in every pass kept in memory, never more than `cache_gib`. Which signals may be kept depends on their
    names alone, and those are run through the upstream one by one: so the features are the same to the last bit
    whenever a signal was first met, and a resumed run sees what the uninterrupted one saw.
    """

    def __init__(self, upstream: nn.Module, featurizer: Featurizer, fine_tune: bool, cache_gib: float = 0.0):
        super().__init__()
        self.upstream, self.featurizer, self.fine_tune = upstream, featurizer, fine_tune
        self.upstream.requires_grad_(fine_tune).train(fine_tune)  # Lightning keeps the modes that it finds
        self.room = 0 if fine_tune else int(cache_gib * GIB)
        self.share_kept = 0.0
        self.kept: dict[str, States] = {}
        self.bytes_kept = 0

    def plan(self, lengths: Iterable[int]) -> None:
        """Choose the share of the signals, of these numbers of samples or frames, whose states fit into the cache."""
        upstream = self.upstream
        num_positions = sum(upstream.count_positions(length) for length in lengths)
        needed = num_positions * upstream.hidden_size * len(self.featurizer.layers) * torch.float32.itemsize
        self.share_kept = min(1.0, self.room / max(needed, 1.0))

    def forget(self) -> None:
        """Empty the cache and stop caching: inputs that are used only once need no cache."""
        self.share_kept = 0.0
        self.kept.clear()
        self.bytes_kept = 0

    def train(self, mode: bool = True) -> "UpstreamFeatures":
        super().train(mode)
        self.upstream.train(mode and self.fine_tune)
        return self

    def forward(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """signals: B waveforms or clips; keys: a name for each that is the same in every pass, else None.

        Returns (B, N, D) features with zeros in padded positions, and (B,) int64 lengths.
        """
        with torch.set_grad_enabled(self.fine_tune and torch.is_grad_enabled()):
            states, lengths = self._states(signals, keys)
        return self.featurizer(states), lengths

    def _states(self, signals: Sequence[Tensor], keys: Sequence[str | None]) -> tuple[States, Tensor]:
        if not self.share_kept:
            return self._run(signals)
        device = self.upstream.device
        rows: dict[int, States] = {}
        fresh = []
        for index, (signal, key) in enumerate(zip(signals, keys, strict=True)):
            if key is None or not self._is_kept(key):
                fresh.append(index)
                continue
            if key not in self.kept:
                rows[index] = tuple(state[0] for state in self._run([signal])[0])
                self._keep(key, rows[index])
            else:
                rows[index] = tuple(state.to(device, non_blocking=True) for state in self.kept[key])
        if fresh:
            states, lengths = self._run([signals[index] for index in fresh])
            for row, (index, length) in enumerate(zip(fresh, lengths.tolist(), strict=True)):
                rows[index] = tuple(state[row, :length] for state in states)
        ordered = [rows[index] for index in range(len(signals))]
        lengths = torch.tensor([len(states[0]) for states in ordered], device=device)
        return tuple(pad_sequence(list(layer), batch_first=True) for layer in zip(*ordered, strict=True)), lengths

    def _run(self, signals: Sequence[Tensor]) -> tuple[States, Tensor]:
        output = self.upstream(signals, num_hidden_states=max(self.featurizer.layers) + 1)
        return self.featurizer.select(output["hidden_states"]), output["lengths"]

    def _is_kept(self, key: str) -> bool:
        return hash_fraction(key) < self.share_kept

    def _keep(self, key: str, states: States) -> None:
        size = sum(state.nbytes for state in states)
        if self.bytes_kept + size <= self.room:  # the share is an expectation; the room is a bound
            self.kept[key] = tuple(state.cpu() for state in states)
            self.bytes_kept += size


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
