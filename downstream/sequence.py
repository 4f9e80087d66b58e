"""Tasks that say a sequence of an utterance, by CTC: everything but where utterances and texts come from."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mynah.downstream import interfaces
from mynah.downstream.speech import Corpus, SpeechDataConfig, SpeechTask, SpeechTaskConfig
from mynah.utility.configuration.sections import rules
from mynah.utility.errors import UserError
from mynah.utility.evaluation.ctc import BLANK, Decoded, greedy_decode
from mynah.utility.evaluation.edits import draw_errors
from mynah.utility.evaluation.sequences import error_rates, record_sequences, write_transcripts

INFERENCE = "inference"
"""What `decode` is told instead of a split where `predict` calls it."""


class SequenceDataConfig(SpeechDataConfig):
    """Where the utterances and their texts are."""

    file_path: str = ""
    """A CSV or TSV with the columns path, text, split (train, dev or test), unless the task says otherwise; "" for
    none."""

    @rules
    def _utterances_are_whole(self) -> Iterable[str | None]:
        if self.max_timestep is not None:
            yield "max_timestep: a crop does not hold the whole text; leave it null (max_seconds bounds the files)"


class SequenceConfig(SpeechTaskConfig):
    """The schema of such a task; a subclass declares its `model`."""

    datarc: SequenceDataConfig = Field(default_factory=SequenceDataConfig)


class SequenceExpert(SpeechTask):
    """A subclass says what `read_corpus` finds, a text an utterance, and may set what is below.

    Connectionist temporal classification (Graves et al. 2006): a distribution over the symbols and the blank at each
    position, and the loss of all its paths that give the text.
    """

    Config = SequenceConfig
    monitor = "cer"
    mode = "min"
    name, names = "symbol", "symbols"
    rates: tuple[str, ...] = ("cer", "wer")
    """The error rates to report, of RATES in utility/evaluation/sequences.py; the parts of the first are told too."""
    unspoken: tuple[str, ...] = ()
    """Symbols that the head may say, but that are no part of a text."""

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
        symbols = (self.symbols[index - BLANK - 1] for index in label)
        return self.join_symbols([symbol for symbol in symbols if symbol not in self.unspoken])

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
            said = [self.decode_label(each.tokens) for each in self.decode(split, log_probs, lengths)]
            record_sequences(names, [self.decode_label(label) for label in labels], said, losses.tolist(), records)
        return losses.mean()

    def log_probs(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, symbols and the blank) float32."""
        return self.model(features).float().log_softmax(-1)

    def decode(self, split: str, log_probs: Tensor, lengths: Tensor) -> list[Decoded]:
        """The symbols of each utterance; greedy, unless a subclass knows better. split: of SPLITS, or INFERENCE."""
        return greedy_decode(log_probs, lengths)

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """The error rates over the whole split, the parts of the first, and the mean loss in nats a symbol."""
        return error_rates(records, self.rates)

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """transcripts.csv (name, reference, hypothesis, the first error rate) and errors.png."""
        title = f"{split}: {len(records['name'])} utterances"
        return [
            write_transcripts(folder / "transcripts.csv", records, self.rates[0]),
            draw_errors(records, self.rates, folder / "errors.png", title),
        ]

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """{"text": str}, and where `signals` tells the positions' times "tokens": [{"token", "time" (seconds)}, ...],
        the middle of the position at which each symbol begins."""
        results = []
        for row, said in enumerate(self.decode(INFERENCE, self.log_probs(features, lengths), lengths)):
            results.append({"text": self.decode_label(said.tokens)})
            if signals:
                times = [round(float(signals[row].times[position]), 4) for position in said.positions]
                timed = zip((self.decode_label([token]) for token in said.tokens), times, strict=True)
                results[row]["tokens"] = [{"token": token, "time": time} for token, time in timed if token]
        return results

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
