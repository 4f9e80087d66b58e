"""Masked language modeling on clips and captions: the training of vidswin_albert, as a LightningModule."""

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from mynah.utility.albert.caption_fit import warn_of_misfit
from mynah.utility.captions.corpus import (
    CaptionedClip,
    ClipDataset,
    annotation_file,
    read_captioned_clips,
    split_validation_clips,
)
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, read_checkpoint, select_weights
from mynah.utility.experiments.folder import Experiment
from mynah.utility.nn.size import describe_size
from mynah.utility.training.identity import fingerprint
from mynah.utility.training.loaders import BadFileLog
from mynah.utility.training.optimization import decay_groups
from mynah.utility.training.pretraining import PretrainingModule
from mynah.utility.training.trainer_arguments import count_processes
from mynah.utility.video.frames import normalize_frames

from .config import ModelSection, PretrainConfig
from .initialization import checkpoint_tokenizer, choose_tokenizer, load_published, resolve_albert, restore_tokenizer
from .masked_clips import MaskedClips, collate
from .model import VidSwinAlbert

log = logging.getLogger("mynah")

BATCH_TENSORS = ("frames", "inputs", "labels", "valid", "targets")


class VideoCaptionPretraining(PretrainingModule):
    """Trains `model` to say the masked words of captions, from the other words and the clip."""

    def __init__(self, config: PretrainConfig, experiment: Experiment):
        """Reads which clips there are, because word pieces are learned from their captions. Raises UserError."""
        super().__init__(config, experiment)
        self.train_clips, self.validation_items = self._read_clips()
        if experiment.resume_from is not None:
            checkpoint = read_checkpoint(experiment.resume_from, "pretrain")
            self.tokenizer = restore_tokenizer(config, checkpoint)
            _count_epochs_anew(config, checkpoint[METADATA]["pretrain_config"])
        else:
            self.tokenizer = choose_tokenizer(config, self.train_clips)
            captions = [text for clip in self.train_clips for text in clip.captions]
            remedy = "give another init.albert or tokenizer.file"
            warn_of_misfit(self.tokenizer, captions, config.masking.max_length, remedy)
        self.model = VidSwinAlbert(config.model)
        if experiment.resume_from is None:
            load_published(self.model, config)

    def _read_clips(self) -> tuple[list[CaptionedClip], list[CaptionedClip]]:
        """The clips that are there, for training and held out: the dev annotations', or a share of the training's."""
        datarc = self.config.datarc
        clips = read_captioned_clips(datarc, "train", self.skipped).clips
        if annotation_file(datarc, "dev") is not None:
            return clips, read_captioned_clips(datarc, "dev", self.skipped).clips
        return split_validation_clips(clips, datarc.valid_fraction, datarc.split_seed)

    def prepare(self) -> None:
        """Settle how long the run is. Raises UserError where the corpus and the length do not fit."""
        num_pairs = sum(len(clip.captions) for clip in self.train_clips)
        num_clips = len(self.train_clips) + len(self.validation_items)
        self.bad_files = BadFileLog(self.skipped, num_clips, self.config.datarc.max_bad_fraction)
        log.info(
            "%d clips with %d captions; %d held out", len(self.train_clips), num_pairs, len(self.validation_items)
        )
        if "max_steps" not in self.config.trainer:
            self.config.trainer["max_steps"] = steps_of_epochs(self.config, num_pairs)
            log.info("%g epochs are %d steps", self.config.epochs, self.config.trainer["max_steps"])

    def data_fingerprints(self) -> dict[str, str]:
        """Of what is trained on and of what is held out."""
        parts = {"training": self.train_clips, "held-out": self.validation_items}
        return {
            part: fingerprint([clip.name for clip in clips], [len(clip.captions) for clip in clips])
            for part, clips in parts.items()
        }

    def describe_size(self) -> str:
        return describe_size(self.model.captioner.albert.encoder, self.model)

    # -- data ------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        dataset = self._dataset(self.train_clips, training=True)
        return self.make_training_loader(dataset, dataset.lengths, collate)

    def val_dataloader(self) -> DataLoader | list:
        if not self.validation_items:
            return []
        dataset = self._dataset(self.validation_items, training=False)
        return self.make_evaluation_loader(dataset, dataset.lengths, collate)

    def _dataset(self, clips: list[CaptionedClip], training: bool) -> MaskedClips:
        config = self.config
        frames = ClipDataset(
            clips,
            config.model.num_frames,
            config.model.frame_size,
            self.seed,
            random_crop=training,
            captions_per_clip=config.datarc.captions_per_clip if training else None,
            frame_cache=config.datarc.frame_cache_folder(),
        )
        return MaskedClips(frames, self.tokenizer, config.masking, self.seed, config.model.frame_size)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, index: int) -> dict[str, Any]:
        if not batch["names"]:
            return batch
        return {**batch, **{key: batch[key].to(device, non_blocking=True) for key in BATCH_TENSORS}}

    # -- steps -----------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        count = self.mean_over_processes(batch["targets"].sum())
        logits, labels = self._predict(batch)
        word_loss = F.cross_entropy(logits.float(), labels, reduction="sum") / count
        sparsity = self.model.captioner.sparsity()
        loss = word_loss + self.config.loss.sparse_weight * sparsity
        self.track_loss(loss, batch["names"])
        size = len(batch["names"])
        self.log("loss", loss, prog_bar=True, batch_size=size)
        self.log_dict({"word_loss": word_loss, "sparsity": sparsity}, batch_size=size)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.val_sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.bad_files.note(batch["bad"])
        if not batch["names"]:
            return
        logits, labels = self._predict(batch)
        error = F.cross_entropy(logits.float(), labels, reduction="sum").double()
        right = (logits.argmax(-1) == labels).sum()
        self.val_sums += torch.stack([error, right.double(), torch.tensor(len(labels), device=self.device).double()])

    def on_validation_epoch_end(self) -> None:
        """val_loss and val_accuracy: over all masked words of the held-out clips, whatever their batches."""
        error, right, count = self.trainer.strategy.reduce(self.val_sums, reduce_op="sum").tolist()
        if not count:
            raise UserError(
                f"none of the {len(self.validation_items)} held-out clips could be read; see {self.skipped}"
            )
        self.report_val_loss(error / count)
        self.log("val_accuracy", right / count, prog_bar=True)

    def _predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Scores (M, vocab_size) and labels (M,) of the batch's masked words."""
        targets = batch["targets"]
        logits = self.model(normalize_frames(batch["frames"]), batch["inputs"], batch["valid"], targets)
        return logits, batch["labels"][targets]

    # -- weights ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.config.optimizer
        rest = torch.nn.ModuleList([self.model.projection, self.model.captioner])
        groups = [
            *decay_groups(rest, optimizer.lr, optimizer.weight_decay, "captioner"),
            *decay_groups(
                self.model.swin, optimizer.lr * optimizer.backbone_factor, optimizer.weight_decay, "backbone"
            ),
        ]
        return self.optimizers_for(groups, optimizer, self.config.scheduler, self.config.trainer["max_steps"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        model, tokenizer = to_plain(ModelSection(model=self.config.model)), self.tokenizer.to_plain()
        checkpoint[METADATA] = self.checkpoint_metadata("vidswin_albert", model, tokenizer=tokenizer)

    def init_from(self, checkpoint: dict[str, Any], source: str) -> None:
        """Take the weights alone of another run (--init-from), and its word pieces with them."""
        self.tokenizer = checkpoint_tokenizer(checkpoint)
        if self.tokenizer.vocab_size != self.config.model.albert.vocab_size:
            resolve_albert(self.config, self.tokenizer)
            self.model = VidSwinAlbert(self.config.model)
        trained = from_plain(ModelSection, checkpoint[METADATA]["config"], source).model
        weights = self.model.resize_sparse_attention(select_weights(checkpoint["state_dict"], "model."), trained)
        load_weights(self.model, weights, source)
        log.info("initialized from %s (step %d), with its word pieces", source, checkpoint[METADATA]["step"])


def _count_epochs_anew(config: PretrainConfig, earlier: dict[str, Any]) -> None:
    """Where a resumed run is given other `epochs`, its steps are no longer those that the run began with."""
    same_steps = config.trainer.get("max_steps") == earlier["trainer"]["max_steps"]
    if config.epochs not in (None, earlier["epochs"]) and same_steps:
        del config.trainer["max_steps"]


def steps_of_epochs(config: PretrainConfig, num_pairs: int) -> int:
    """Optimizer steps of `config.epochs` passes over that many pairs of clip and caption."""
    trainer, datarc = config.trainer, config.datarc
    processes = count_processes(trainer)
    if processes is None:
        devices = trainer["devices"]
        raise UserError(f"epochs: cannot be counted with trainer.devices={devices!r}; give trainer.max_steps")
    pairs = config.dataloader.batch_size * datarc.captions_per_clip * processes
    return math.ceil(config.epochs * num_pairs / (pairs * trainer.get("accumulate_grad_batches", 1)))
