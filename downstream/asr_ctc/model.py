"""The recognizer's head: a projector and a bidirectional LSTM."""

from collections.abc import Callable

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from mynah.utility.configuration.sections import Section


class RecognizerConfig(Section):
    """The head's shape."""

    projector_size: int = Field(1024, gt=0)
    """Width between the features and the LSTM."""
    lstm_size: int = Field(1024, gt=0)
    """Units of an LSTM layer in each direction."""
    num_lstm_layers: int = Field(2, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    """After every LSTM layer."""


class Recognizer(nn.Module):
    """features: (B, N, feature_size), lengths: (B,) int64, at least 1 each -> logits (B, N, num_outputs), zeros where
    there is only padding. Padding is never read: the LSTM runs over packed sequences."""

    def __init__(self, feature_size: int, num_outputs: int, config: RecognizerConfig):
        super().__init__()
        self.projector = nn.Linear(feature_size, config.projector_size)
        # Layers of their own: the dropout between those of one nn.LSTM has a random state of its own on a GPU, which
        # would not follow from the step.
        sizes = [config.projector_size, *[2 * config.lstm_size] * config.num_lstm_layers]
        self.lstm = nn.ModuleList(
            nn.LSTM(size, config.lstm_size, batch_first=True, bidirectional=True) for size in sizes[:-1]
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(sizes[-1], num_outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed = _each(self.projector, packed)
        for layer in self.lstm:
            packed = _each(self.dropout, layer(packed)[0])
        logits, _ = pad_packed_sequence(_each(self.output, packed), batch_first=True, total_length=features.shape[1])
        return logits


def _each(function: Callable[[Tensor], Tensor], packed: PackedSequence) -> PackedSequence:
    """A function of single positions, of all of them."""
    return packed._replace(data=function(packed.data))
