"""Tasks that say a sequence of an utterance, by CTC: everything but where utterances and texts come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream import interfaces
from mynah.downstream.speech import Corpus, SpeechTask
from mynah.utility.errors import UserError
from mynah.utility.evaluation.ctc import BLANK, greedy_tokens
from mynah.utility.evaluation.sequences import error_rates, record_sequences, write_transcripts


class SequenceExpert(SpeechTask):
    """A subclass says what `read_corpus` finds, a text an utterance, and may set what is below.

    Connectionist temporal classification (Graves et al. 2006): a distribution over the symbols and the blank at each
    position, and the loss of all its paths that give the text.
    """

    monitor = "cer"
    mode = "min"
    rates: tuple[str, ...] = ("cer", "wer")
    """The error rates to report, of RATES in utility/evaluation/sequences.py."""

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Any,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.symbols = self.symbol_names(self.corpus) if state is None else list(state["symbols"])
        if not self.symbols:
            raise UserError(f"{config.datarc.file_path}: the texts of the training split are empty")
        self.indices = {symbol: index for index, symbol in enumerate(self.symbols, start=BLANK + 1)}
        self.model = self.build_head(upstream.feature_size, len(self.symbols) + 1)

    def build_head(self, feature_size: int, num_outputs: int) -> nn.Module:
        """(B, N, feature_size) -> logits (B, N, num_outputs), the blank first; a linear layer unless a subclass knows
        better."""
        return nn.Linear(feature_size, num_outputs)

    def split_text(self, text: str) -> Sequence[str]:
        """A text's symbols: its characters, unless a subclass knows better."""
        return text

    def join_symbols(self, symbols: Sequence[str]) -> str:
        """The text of these symbols."""
        return "".join(symbols)

    def symbol_names(self, corpus: Corpus) -> list[str]:
        """The symbols that occur in training, sorted, unless a subclass knows better."""
        return sorted({symbol for _, text in corpus["train"] for symbol in self.split_text(text)})

    def encode_label(self, target: str) -> list[int]:
        return [self.indices[symbol] for symbol in self.split_text(target)]

    def decode_label(self, label: Sequence[int]) -> str:
        """The text of symbols given by their indices."""
        return self.join_symbols([self.symbols[index - BLANK - 1] for index in label])

    def state(self) -> dict[str, Any]:
        return {"symbols": self.symbols}

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[list[int]],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        """labels: B of symbols' indices. The loss is the mean over the utterances, each divided by its symbols.

        Texts that have more symbols than the utterance has positions have no path, and count as zero.
        """
        log_probs = self.log_probs(features, lengths)
        losses = ctc_losses(log_probs, lengths, labels)
        if split != "train":
            found = self.decode(log_probs, lengths)
            record_sequences(names, [self.decode_label(label) for label in labels], found, losses.tolist(), records)
        return losses.mean()

    def log_probs(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, symbols and the blank) float32."""
        return self.model(features).float().log_softmax(-1)

    def decode(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """The text of each utterance; greedy, unless a subclass knows better."""
        return [self.decode_label(tokens) for tokens in greedy_tokens(log_probs, lengths)]

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """The error rates over the whole split, and the mean loss in nats a symbol."""
        return error_rates(records, self.rates)

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """transcripts.csv (name, reference, hypothesis, errors)."""
        return [write_transcripts(folder / "transcripts.csv", records, self.rates[0])]

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """{"text": str}."""
        return [{"text": text} for text in self.decode(self.log_probs(features, lengths), lengths)]

    def format_prediction(self, result: dict[str, Any]) -> str:
        return result["text"]


def ctc_losses(log_probs: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """(B, N, C) log probabilities and B label sequences -> (B,) CTC losses, each divided by its symbols (at least 1);
    zero where no path gives the labels."""
    sizes = torch.tensor([len(label) for label in labels])
    targets = torch.tensor([index for label in labels for index in label], dtype=torch.long, device=log_probs.device)
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths.cpu(), sizes, BLANK, reduction="none", zero_infinity=True
    )
    return losses / sizes.clamp(min=1).to(losses.device)
