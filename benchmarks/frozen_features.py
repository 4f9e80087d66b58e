"""How long a second epoch of voxceleb1_speaker takes with features that are kept, against computing them every time.

    python benchmarks/frozen_features.py FOLDER --utterances 2000 --threads 2

FOLDER: speaker folders of real speech. The head is SUPERB's; utterances are read whole. Three ways:
- every epoch reads the files and runs the upstream on padded batches, as s3prl does;
- the mean of each hidden state is kept in memory (features.cache=memory);
- the frames are kept on disk as float16, for a head that needs them (features.cache=disk), in a temporary folder.
The first is measured on `--batches` batches of the epoch, evenly spread, and scaled to its seconds of audio.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from report import Report, Row, build_parser, load_upstream, peak_mib, prepare

from mynah import ROOT
from mynah.downstream.caching import open_cache
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.features import Featurizer, UpstreamFeatures
from mynah.downstream.model import describe_upstream
from mynah.downstream.module import collate
from mynah.downstream.voxceleb1_speaker.expert import DownstreamExpert
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import load_config
from mynah.utility.training.batching import TrainingBatches
from mynah.utility.training.loaders import training_loader

SEED = 0


def main() -> None:
    parser = build_parser(__doc__, steps=3, upstream="aalbert")
    parser.add_argument("folder", help="a folder of speaker folders")
    parser.add_argument("--utterances", type=int, default=2000)
    parser.add_argument("--batches", type=int, default=10, help="that the first way is measured on; 0 for all")
    arguments = prepare(parser)
    report = Report(arguments)
    task = Task(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MYNAH_CACHE"] = folder
        recomputed = task.recomputed(arguments.batches)
        report.add(Row("computed every time", recomputed, task.audio_seconds / recomputed, peak_mib=peak()))
        for what, reads_mean, cache in (("means in memory", True, "memory"), ("frames on disk", False, "disk")):
            first, second = task.kept(reads_mean, cache, arguments.steps)
            report.add(Row(f"{what}, first epoch", first, task.audio_seconds / first, peak_mib=peak()))
            report.add(Row(f"{what}, second epoch", second, task.audio_seconds / second, peak_mib=peak()))
            print(f"{what}: the second epoch is {recomputed / second:.0f} times as fast as computing all", flush=True)
    report.print()


class Task:
    """An untrained upstream of full size, the head and the data."""

    def __init__(self, arguments: Any):
        self.device = arguments.device
        self.upstream = load_upstream(arguments.upstream).to(self.device)
        overrides = [f"datarc.file_path={arguments.folder}", "datarc.max_timestep=null", "dataloader.num_workers=0"]
        config_file = ROOT / "downstream" / "voxceleb1_speaker" / "config.yaml"
        self.config = load_config(DownstreamExpert.Config, files=[config_file], overrides=overrides)
        self.expert = DownstreamExpert(describe_upstream(self.upstream), self.config).to(self.device)
        every = max(1, len(self.expert.corpus["train"]) // arguments.utterances)
        self.expert.corpus["train"] = self.expert.corpus["train"][::every][: arguments.utterances]
        self.items = FeatureItems(self.expert.get_dataset("train"))
        self.audio_seconds = sum(self.items.lengths) / SAMPLE_RATE
        self.per_epoch = len(TrainingBatches(self.items.lengths, self.batch_size, 1, seed=SEED).batches_of_pass(0))
        hours = self.audio_seconds / 3600
        print(f"{len(self.items)} utterances of {hours:.2f} h, {self.per_epoch} batches", flush=True)

    @property
    def batch_size(self) -> int:
        return self.config.dataloader.batch_size

    def recomputed(self, count: int) -> float:
        """Seconds of an epoch that computes all features, as far as some batches tell."""
        featurizer = Featurizer(self.upstream.num_hidden_states, self.config.features)
        features = UpstreamFeatures(self.upstream, featurizer, False).to(self.device)
        step = self._step(features)
        every = max(1, self.per_epoch // (count or self.per_epoch))
        seconds = audio = 0.0
        started = time.perf_counter()
        for number, batch in enumerate(self._epoch(0, features, every)):
            step(batch)
            if number:  # the first warms up
                seconds += time.perf_counter() - started
                audio += batch["audio_seconds"]
            started = time.perf_counter()
        return seconds * self.audio_seconds / audio

    def kept(self, reads_mean: bool, cache: str, steps: int) -> tuple[float, float]:
        """Seconds of the first epoch, and of the fastest of `steps` later ones."""
        settings = self.config.features.model_copy(update={"cache": cache, "cache_gib": 64.0})
        featurizer = Featurizer(self.upstream.num_hidden_states, settings, reads_mean)
        features = UpstreamFeatures(self.upstream, featurizer, False).to(self.device)
        features.cache = open_cache(features, settings, self.items, [])
        step = self._step(features)
        taken = []
        for epoch in range(1 + steps):
            started = time.perf_counter()
            for batch in self._epoch(epoch, features):
                step(batch)
            features.cache.flush()
            taken.append(time.perf_counter() - started)
        return taken[0], min(taken[1:])

    def _epoch(self, epoch: int, features: UpstreamFeatures, every: int = 1) -> Iterator[dict[str, Any]]:
        first = epoch * self.per_epoch
        for start in range(first, first + self.per_epoch, every):
            loader = training_loader(
                self.items,
                self.items.lengths,
                self.config.dataloader,
                collate,
                num_batches=first + self.per_epoch if every == 1 else start + 1,
                start=start,
                seed=SEED,
                rank=0,
                world_size=1,
                is_known=lambda key: self.items.is_known(key, features.cache),
            )
            yield from loader
            if every == 1:
                return

    def _step(self, features: UpstreamFeatures) -> Any:
        parameters = [*self.expert.parameters(), *features.featurizer.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)

        def step(batch: dict[str, Any]) -> None:
            given, lengths = features(batch["signals"], batch["keys"])
            loss = self.expert("train", given, lengths, batch["labels"], {}, batch["names"])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            loss.item()

        return step


def peak() -> float:
    """The most memory held by the process, in MiB."""
    return peak_mib("cpu")


if __name__ == "__main__":
    main()
