"""Video captioning (VATEX, or any videos with captions)."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mynah.downstream import interfaces
from mynah.utility.albert.caption_fit import warn_of_misfit
from mynah.utility.albert.generation import GeneratedCaption, GenerationConfig, generate
from mynah.utility.albert.masked_captions import CaptionMaskingConfig
from mynah.utility.albert.word_attention import word_attention
from mynah.utility.captions.corpus import CaptionCorpusConfig, ClipDataset, Coverage, read_captioned_clips
from mynah.utility.captions.scores import ScoreReport
from mynah.utility.configuration.sections import rules
from mynah.utility.demo.video import demo_vatex
from mynah.utility.errors import UserError
from mynah.utility.training.config import ClipLoaderConfig

from .decoders import build_captioner, num_steps, plain_captioner, rebuild_captioner
from .losses import caption_losses
from .model import CaptionModelConfig
from .pictures import CaptionPicture, WordsOverTime, draw_caption, draw_records, words_over_time
from .report import caption_metrics, score_captions, warn_of_collapse, write_predictions

log = logging.getLogger("mynah")


class CaptionDataConfig(CaptionCorpusConfig):
    """Which clips are read, and how; see utility/captions/corpus.py.

    augment: cut a random square out of a training clip instead of its middle. Features of a frozen upstream are then
      computed anew in every pass, because no clip comes twice as it was.
    """

    augment: bool = False


class Config(interfaces.DownstreamConfig):
    """The schema of config.yaml."""

    datarc: CaptionDataConfig = Field(default_factory=CaptionDataConfig)
    model: CaptionModelConfig = Field(default_factory=CaptionModelConfig)
    masking: CaptionMaskingConfig = Field(default_factory=CaptionMaskingConfig)
    dataloader: ClipLoaderConfig = Field(default_factory=ClipLoaderConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    pictures: int = Field(3, ge=0)
    """Clips that a test draws: their frames, caption, and the attention of each word over the frames."""

    @rules
    def _captions_fit(self) -> Iterable[str | None]:
        if self.generation.max_length >= self.masking.max_length:
            yield (
                f"generation.max_length: must be less than masking.max_length ({self.masking.max_length}), a caption "
                f"of training with its [CLS] and [SEP], got {self.generation.max_length}"
            )


class DownstreamExpert(interfaces.DownstreamExpert):
    """A caption decoder over [caption | features]: masked language modelling in training, then word by word."""

    modality = "video"
    Config = Config
    monitor = "cider"
    mode = "max"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Config,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        # The upstream's decoder is not kept: what is needed of it is taken here.
        super().__init__(dataclasses.replace(upstream, caption_decoder=None), config, state, folder)
        self.has_trained = False
        self._coverages: dict[str, Coverage] = {}
        self._scored: tuple[dict[str, list], int, ScoreReport] | None = None
        if state is None:
            embedded = takes_embedded(upstream, config.features)
            warn_of_first_state(upstream, config.features)
            self.model, self.tokenizer = build_captioner(upstream, config.model, embedded, self._training_captions)
            remedy = "give model.use_upstream_decoder=false, or another model.albert"
            warn_of_misfit(self.tokenizer, self._training_captions(), config.masking.max_length, remedy)
        else:
            self.model, self.tokenizer = rebuild_captioner(upstream, state)
        room = self.model.decoder.config.max_position_embeddings
        if config.masking.max_length > room:
            raise UserError(
                f"masking.max_length: the caption decoder has positions for {room} word pieces, "
                f"got {config.masking.max_length}"
            )

    @classmethod
    def use_demo_data(cls, config: Config) -> None:
        data = config.datarc
        data.file_path, data.language = str(demo_vatex()), "en"
        data.train = data.dev = data.test = ""

    def state(self) -> dict[str, Any]:
        return plain_captioner(self.model, self.tokenizer)

    def get_dataset(self, split: str) -> ClipDataset:
        """Labels are lists of all captions of a clip; a training step draws datarc.captions_per_clip of them."""
        data = self.config.datarc
        return ClipDataset(
            self._coverage(split).clips,
            self.upstream.frames_per_clip,
            self.upstream.frame_size,
            self.config.seed,
            random_crop=data.augment and split == "train",
            frame_cache=data.frame_cache_folder(),
        )

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[list[str]],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        """The mean cross-entropy of the masked word pieces, and in training what keeps the attention sparse.

        In `train()` captions and masks are drawn from torch's generator. In `eval()` all captions are taken and masks
        are a function of the clip's name; the records of each clip are its name, prediction, confidence, references
        loss, and attention, the words and theirs over time: of the first few, for pictures, of the others None.
        """
        embedded, valid = self.model.embed(features, lengths)
        if self.training:
            self.has_trained = True
            losses, _ = self._losses(embedded, valid, [self._draw(texts) for texts in labels])
            return losses.mean() + self.config.model.sparse_weight * self.model.decoder.sparsity()
        _, of_clips = self._losses(embedded, valid, labels, names)
        found = [best for best, *_ in self._generate(embedded, valid)]
        columns = {
            "name": list(names),
            "prediction": [self.tokenizer.decode(caption.ids) for caption in found],
            "confidence": [caption.confidence for caption in found],
            "references": [list(texts) for texts in labels],
            "loss": of_clips.tolist(),
        }
        if not self._is_quick(split):
            columns["attention"] = [None] * len(names)
            earlier = sum(each is not None for each in records.get("attention", ()))
            if to_draw := min(len(names), max(0, self.config.pictures - earlier)):
                some_valid = None if valid is None else valid[:to_draw]
                columns["attention"][:to_draw] = self._attend(embedded[:to_draw], some_valid, found[:to_draw])
        for key, column in columns.items():
            records.setdefault(key, []).extend(column)
        return of_clips.mean()

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """BLEU-1 to 4, METEOR, ROUGE-L and CIDEr; loss in nats; coverage, the share of the split's listed clips that
        these are; distinct, different captions of all.

        The dev split of a run that trains is scored without Java, so without METEOR and by other words than a test.
        Warns where the captions have collapsed.
        """
        warn_of_collapse(split, records)
        return caption_metrics(records, self._scores(split, records), self._coverage(split).num_listed)

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """predictions.json, predictions.md, and a picture of each of the first `pictures` clips."""
        coverage = self._coverage(split)
        paths = write_predictions(folder, split, records, self._scores(split, records), coverage.num_listed)
        clips = {clip.name: clip.path for clip in coverage.clips}
        return paths + draw_records(records, clips, self.upstream, self.config.pictures, folder)

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """{"caption": str, "confidence": float} a clip, with num_return > 1 also "alternatives", a list of such."""
        results = []
        for found in self._generate(*self.model.embed(features, lengths)):
            best, *others = [self._result(caption) for caption in found]
            results.append({**best, "alternatives": others} if self.config.generation.num_return > 1 else best)
        return results

    def format_prediction(self, result: dict[str, Any]) -> str:
        lines = [result, *result.get("alternatives", [])]
        return "; ".join(f"{each['caption']} (confidence {100 * each['confidence']:.0f} %)" for each in lines)

    def draw_prediction(
        self,
        features: Tensor,
        lengths: Tensor,
        signal: Tensor,
        path: Path,
        info: interfaces.SignalInfo | None = None,
    ) -> None:
        """The clip's frames, its caption, and the attention of each word over the frames, as a PNG."""
        embedded, valid = self.model.embed(features, lengths)
        [[best, *_]] = self._generate(embedded, valid)
        [(words, shares)] = self._attend(embedded, valid, [best])
        caption = self.tokenizer.decode(best.ids)
        draw_caption(CaptionPicture(signal, caption, best.confidence, words, shares), self.upstream, path)

    def _draw(self, captions: list[str]) -> list[str]:
        """As many as a training step takes of a clip's captions."""
        count = self.config.datarc.captions_per_clip
        return captions if len(captions) <= count else [captions[i] for i in torch.randperm(len(captions))[:count]]

    def _losses(
        self, embedded: Tensor, valid: Tensor | None, captions: list[list[str]], names: list[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `caption_losses`."""
        masking, encode = self.config.masking, self.tokenizer.encode
        pieces = [[encode(text, max_length=masking.max_length).ids for text in texts] for texts in captions]
        return caption_losses(self.model, embedded, valid, pieces, masking, self.tokenizer, names)

    def _generate(self, embedded: Tensor, valid: Tensor | None) -> list[list[GeneratedCaption]]:
        return generate(self.model.decoder, embedded, valid, self.config.generation, self.tokenizer)

    def _attend(self, embedded: Tensor, valid: Tensor | None, found: list[GeneratedCaption]) -> list[WordsOverTime]:
        """For pictures, the words of each caption and the attention of each to the steps of time."""
        ids = [caption.ids for caption in found]
        attention = word_attention(self.model.decoder, embedded, valid, ids, self.tokenizer)
        steps = num_steps(self.upstream)
        return [words_over_time(self.tokenizer, *each, steps) for each in zip(ids, attention, strict=True)]

    def _result(self, caption: GeneratedCaption) -> dict[str, Any]:
        return {"caption": self.tokenizer.decode(caption.ids), "confidence": caption.confidence}

    def _scores(self, split: str, records: dict[str, list]) -> ScoreReport:
        """Scores of the records, computed once for metrics and report."""
        count = len(records["name"])
        if self._scored is None or self._scored[0] is not records or self._scored[1] != count:
            report = score_captions(records, self.config.datarc.language, self._is_quick(split))
            self._scored = records, count, report
        return self._scored[2]

    def _is_quick(self, split: str) -> bool:
        """Whether this is one of many validations, which METEOR's seconds of Java each time would slow down."""
        return split == "dev" and self.has_trained

    def _coverage(self, split: str) -> Coverage:
        if split not in self._coverages:
            self._coverages[split] = read_captioned_clips(self.config.datarc, split, self.skipped_files)
        return self._coverages[split]

    def _training_captions(self) -> list[str]:
        return [caption for clip in self._coverage("train").clips for caption in clip.captions]


def takes_embedded(upstream: interfaces.UpstreamInfo, features: interfaces.FeaturesConfig) -> bool:
    """Whether the features are H_0 as the upstream's caption decoder was pretrained with it."""
    first = features.layer in (0, -upstream.num_hidden_states)
    alone = features.selection == "hidden_states" and first and not features.normalize
    given = upstream.caption_decoder
    return alone and given is not None and given["config"]["hidden_size"] == upstream.feature_size


def warn_of_first_state(upstream: interfaces.UpstreamInfo, features: interfaces.FeaturesConfig) -> None:
    """Say where the default, H_0, which is for upstreams with a caption decoder, leaves an encoder's layers out."""
    several = upstream.num_hidden_states > 1 and features.selection == "hidden_states"
    if several and features.layer == 0 and upstream.caption_decoder is None:
        log.warning(
            "features.layer is 0: what enters the first of upstream '%s's %d layers, which are left out; "
            "-l -1 takes what leaves the last",
            *(upstream.name, upstream.num_hidden_states - 1),
        )
