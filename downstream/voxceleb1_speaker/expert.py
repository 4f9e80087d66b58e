"""Speaker identification: who of the known speakers it is (VoxCeleb1, or any folder of speaker folders)."""

from functools import cached_property

from pydantic import Field

from mynah.downstream import classification
from mynah.utility.audio.labelled import LabelledSpeechDataset
from mynah.utility.demo.speech import demo_voxceleb1
from mynah.utility.errors import UserError

from .dataset import SpeakerCorpus, SpeakerDataConfig, read_corpus


class SpeakerConfig(classification.ClassificationConfig):
    """The schema of config.yaml."""

    datarc: SpeakerDataConfig = Field(default_factory=SpeakerDataConfig)


class DownstreamExpert(classification.ClassificationExpert):
    """A classifier of speakers, known from the corpus or, when rebuilt from a checkpoint, from its state."""

    Config = SpeakerConfig
    name, names = "speaker", "speakers"

    @classmethod
    def use_demo_data(cls, config: SpeakerConfig) -> None:
        config.datarc.file_path = str(demo_voxceleb1())
        config.datarc.split_list = ""

    def read_corpus(self) -> dict[str, list[classification.Labelled]]:
        return self._speakers.utterances

    def label_names(self, corpus: dict[str, list[classification.Labelled]]) -> list[str]:
        """Those of the whole corpus: the split list's, of which some may have nothing to train on."""
        return self._speakers.speakers

    def get_dataset(self, split: str) -> LabelledSpeechDataset:
        """Labels are indices into self.labels. train has random crops, dev and test whole utterances."""
        data = self.config.datarc
        utterances = self.corpus[split]
        if not utterances:
            raise UserError(
                f"{data.file_path} has no utterance for the split '{split}'; every split needs some "
                "(without a list, a speaker needs three utterances to have one in each split)"
            )
        indices = {speaker: index for index, speaker in enumerate(self.labels)}
        unknown = sorted({speaker for _, speaker in utterances} - set(indices))
        if unknown:
            raise UserError(
                f"{data.file_path} has {len(unknown)} speakers that the checkpoint does not know, such as "
                f"{', '.join(unknown[:3])}; give datarc.file_path the corpus that it was trained on"
            )
        return LabelledSpeechDataset(
            [utterance for utterance, _ in utterances],
            [indices[speaker] for _, speaker in utterances],
            max_samples=data.max_timestep if split == "train" else None,
            seed=self.config.seed,
            trim_silence=data.trim_silence,
        )

    @cached_property
    def _speakers(self) -> SpeakerCorpus:
        return read_corpus(self.config.datarc, self.skipped_files)
