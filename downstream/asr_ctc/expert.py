"""Speech recognition: characters by CTC (LibriSpeech, or a table with texts)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from mynah.downstream import interfaces, sequence
from mynah.downstream.speech import Corpus
from mynah.downstream.transcripts import TranscriptDataConfig, read_transcripts, without_unknown
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.demo.phones import demo_phones
from mynah.utility.evaluation.beam import BeamDecoder
from mynah.utility.evaluation.ctc import Decoded

from .augmentation import AugmentConfig, augment
from .model import Recognizer, RecognizerConfig

SPACE = "|"
CHARACTERS = [SPACE, "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]


class DecoderConfig(Section):
    """How texts are found, of test and in inference; of dev, on which checkpoints are chosen, only with `dev`."""

    name: Annotated[str, one_of(("greedy", "beam"))] = "greedy"
    """greedy, or beam, which needs the package flashlight-text."""
    beam_size: int = Field(50, ge=1)
    lm: str = ""
    """A KenLM file (ARPA or binary), of words where there is a lexicon, else of characters (with | between words)."""
    lexicon: str = ""
    """A file whose lines begin with a word each: only these are recognized."""
    lm_weight: float = Field(2.0, ge=0)
    word_score: float = 0.0
    """Added for every word, with a lexicon."""
    dev: bool = False
    """Decode dev so too; validation takes longer then."""

    @rules
    def _the_beam_is_on(self) -> Iterable[str | None]:
        for key in ("lm", "lexicon"):
            if getattr(self, key) and self.name != "beam":
                yield f"{key}: is for the beam search; add decoder.name=beam"


class RecognitionConfig(sequence.SequenceConfig):
    """The schema of config.yaml."""

    datarc: TranscriptDataConfig = Field(default_factory=TranscriptDataConfig)
    model: RecognizerConfig = Field(default_factory=RecognizerConfig)
    augmentation: AugmentConfig = Field(default_factory=AugmentConfig)
    decoder: DecoderConfig = Field(default_factory=DecoderConfig)


class DownstreamExpert(sequence.SequenceExpert):
    """SUPERB's speech recognition: the outputs are the blank, | between words, the apostrophe, A to Z."""

    Config = RecognitionConfig
    monitor, rates = "wer", ("wer", "cer")
    name, names = "character", "characters"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: RecognitionConfig,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.beam = build_decoder(self.symbols, config.decoder)  # what it lacks is told before the training

    @classmethod
    def use_demo_data(cls, config: RecognitionConfig) -> None:
        splits = {split: [f"{split}-demo"] for split in ("train", "dev", "test")}
        config.datarc = config.datarc.replace(file_path=str(demo_phones()), **splits)

    def read_corpus(self) -> Corpus:
        """{split: [(utterance, text in capitals), ...]}."""
        known = frozenset(CHARACTERS[1:]) | {" "}
        what = "characters that are not A to Z, the apostrophe or a space"
        corpus = {
            split: [(each, " ".join(text.upper().split())) for each, text in items]
            for split, items in read_transcripts(self).items()
        }
        return without_unknown(corpus, lambda text: sorted(set(text) - known), what, self)

    def symbol_names(self, corpus: Corpus) -> list[str]:
        return list(CHARACTERS)

    def split_text(self, text: str) -> Sequence[str]:
        return text.replace(" ", SPACE)

    def join_symbols(self, symbols: Sequence[str]) -> str:
        return "".join(symbols).replace(SPACE, " ")

    def build_head(self, feature_size: int, num_outputs: int) -> nn.Module:
        return Recognizer(feature_size, num_outputs, self.config.model)

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[list[int]],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        if split == "train":
            features = augment(features, lengths, self.config.augmentation)
        return super().forward(split, features, lengths, labels, records, names)

    def log_probs(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.model(features, lengths).float().log_softmax(-1)

    def decode(self, split: str, log_probs: Tensor, lengths: Tensor) -> list[Decoded]:
        if self.beam is None or (split == "dev" and not self.config.decoder.dev):
            return super().decode(split, log_probs, lengths)
        return self.beam(log_probs, lengths)


def build_decoder(symbols: Sequence[str], config: DecoderConfig) -> BeamDecoder | None:
    """The beam search, or None for greedy decoding."""
    if config.name == "greedy":
        return None
    return BeamDecoder(
        symbols,
        SPACE,
        beam_size=config.beam_size,
        lm=config.lm,
        lexicon=config.lexicon,
        lm_weight=config.lm_weight,
        word_score=config.word_score,
    )
