"""Phone recognition: which phones were said, by CTC (LibriSpeech with a lexicon, or a table with phones)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import nn

from mynah.downstream import sequence
from mynah.downstream.speech import Corpus
from mynah.downstream.transcripts import TranscriptDataConfig, read_transcripts, without_unknown
from mynah.utility.configuration.sections import Section, one_of
from mynah.utility.data.tables import is_table, read_manifest
from mynah.utility.demo.phones import demo_phones
from mynah.utility.errors import UserError

from .lexicon import SUPERB_PHONES, read_lexicon

EOS, UNKNOWN = "<eos>", "<unk>"
INVENTORIES = ("superb", "corpus")


class PhoneDataConfig(TranscriptDataConfig):
    """Where the utterances and their phones are."""

    file_path: str = ""
    """LibriSpeech's folder, or a CSV or TSV with the columns path, split and text, or phones where there is no
    lexicon (separated by spaces); "" for none."""
    lexicon: str = ""
    """A file with lines `WORD<tab>PH PH ...`, by which words become phones."""


class PhoneModelConfig(Section):
    """The head: linear, linear."""

    projector_size: int = Field(256, gt=0)
    """Width between the features and the output."""
    phones: Annotated[str, one_of(INVENTORIES)] = "superb"
    """superb (ARPAbet with stress, SIL, SPN: 74 outputs with <pad>, <eos> and <unk>) or corpus (training's)."""
    eos: bool = True
    """Whether every sequence ends with <eos>, as in SUPERB."""


class PhoneConfig(sequence.SequenceConfig):
    """The schema of config.yaml."""

    datarc: PhoneDataConfig = Field(default_factory=PhoneDataConfig)
    model: PhoneModelConfig = Field(default_factory=PhoneModelConfig)


class DownstreamExpert(sequence.SequenceExpert):
    """SUPERB's phone recognition. Output 0 is the blank, <pad> in SUPERB; 1 is <eos>, 2 is <unk>."""

    Config = PhoneConfig
    monitor, rates = "per", ("per",)
    name, names = "phone", "phones"
    unspoken = (EOS,)

    @classmethod
    def use_demo_data(cls, config: PhoneConfig) -> None:
        folder = demo_phones()
        config.datarc = config.datarc.replace(
            file_path=str(folder),
            lexicon=str(folder / "lexicon.txt"),
            **{split: [f"{split}-demo"] for split in ("train", "dev", "test")},
        )

    def read_corpus(self) -> Corpus:
        """{split: [(utterance, "PH PH ..."), ...]}."""
        data = self.config.datarc
        if data.lexicon:
            corpus = self._pronounced(read_transcripts(self), read_lexicon(data.lexicon))
        elif Path(data.file_path).expanduser().is_dir():
            raise UserError(
                f"{data.file_path}: words become phones by a lexicon; give one as datarc.lexicon (LibriSpeech's is "
                "https://www.openslr.org/resources/11/librispeech-lexicon.txt)"
            )
        elif is_table(data.file_path) and "phones" not in read_manifest(data.file_path)[0]:
            raise UserError(
                f"{data.file_path} has no column phones; add it, or give datarc.lexicon, by which the words of the "
                "column text become phones"
            )
        else:
            corpus = read_transcripts(self, column="phones")
        if self.config.model.phones == "superb":
            what = "phones that are not among SUPERB's (model.phones=corpus takes those of training instead)"
            corpus = without_unknown(corpus, lambda text: sorted(set(text.split()) - set(SUPERB_PHONES)), what, self)
        return corpus

    def _pronounced(self, corpus: Corpus, lexicon: dict[str, str]) -> Corpus:
        what = f"words that {self.config.datarc.lexicon} does not have"
        corpus = without_unknown(
            corpus, lambda text: [word for word in text.upper().split() if word not in lexicon], what, self
        )
        return {
            split: [(each, " ".join(lexicon[word] for word in text.upper().split())) for each, text in items]
            for split, items in corpus.items()
        }

    def symbol_names(self, corpus: Corpus) -> list[str]:
        """<eos>, <unk> and the phones."""
        own = {phone for _, text in corpus["train"] for phone in text.split()}
        return [EOS, UNKNOWN, *(SUPERB_PHONES if self.config.model.phones == "superb" else sorted(own))]

    def split_text(self, text: str) -> Sequence[str]:
        return text.split()

    def join_symbols(self, symbols: Sequence[str]) -> str:
        return " ".join(symbols)

    def encode_label(self, target: str) -> list[int]:
        """The phones' indices, and that of <eos>; a phone that training did not have is <unk>."""
        phones = [self.indices.get(phone, self.indices[UNKNOWN]) for phone in self.split_text(target)]
        return [*phones, self.indices[EOS]] if self.config.model.eos else phones

    def build_head(self, feature_size: int, num_outputs: int) -> nn.Module:
        size = self.config.model.projector_size
        return nn.Sequential(nn.Linear(feature_size, size), nn.Linear(size, num_outputs))
