"""How long a second epoch of voxceleb1_speaker takes with features that are kept, against computing them every time.

    python benchmarks/frozen_features.py FOLDER --utterances 2000 --threads 2

FOLDER: speaker folders of real speech. The head is SUPERB's; utterances are read whole. Three ways:
- every epoch reads the files and runs the upstream on padded batches, as s3prl does;
- the mean of each hidden state is kept in memory (features.cache=memory);
- the frames are kept on disk as float16, for a head that needs them (features.cache=disk), in a temporary folder. The
  second epoch finds them in the system's page cache, where memory allows.

The first is measured on `--batches` batches of the epoch, evenly spread, and scaled to its seconds of audio. The
numbers that are kept do not matter to a second epoch, so the caches are filled with noise of the right shapes. With
`--first-epochs` they are computed, one utterance after the other, and the first epochs are reported too.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Sequence
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
    parser.add_argument("--batches", type=int, default=6, help="that the first way is measured on; 0 for all")
    parser.add_argument("--first-epochs", action="store_true", help="compute what is kept, and say how long it takes")
    arguments = prepare(parser)
    report = Report(arguments)
    task = Task(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MYNAH_CACHE"] = folder
        recomputed, measured = task.recomputed(arguments.batches)
        report.add(task.row(f"computed every time, scaled from {measured} of {task.per_epoch} batches", recomputed))
        for what, reads_mean, cache in (("means in memory", True, "memory"), ("frames on disk", False, "disk")):
            first, second = task.kept(reads_mean, cache, arguments.steps)
            if arguments.first_epochs:
                report.add(task.row(f"{what}, first epoch", first))
            report.add(task.row(f"{what}, second epoch", second))
            print(f"{what}: the second epoch is {recomputed / second:.0f} times as fast as computing all", flush=True)
    report.print()


class Task:
    """An untrained upstream of full size, the head and the data."""

    def __init__(self, arguments: Any):
        self.device, self.first_epochs = arguments.device, arguments.first_epochs
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

    def row(self, what: str, seconds: float) -> Row:
        """Of an epoch."""
        return Row(what, seconds, self.audio_seconds / seconds, peak_mib=peak_mib("cpu"))

    def recomputed(self, count: int) -> tuple[float, int]:
        """Seconds of an epoch that computes all features, as far as `count` batches tell, and their number."""
        featurizer = Featurizer(self.upstream.num_hidden_states, self.config.features)
        features = UpstreamFeatures(self.upstream, featurizer, False).to(self.device)
        step = self._step(features)
        count = min(count or self.per_epoch, self.per_epoch)
        evenly = [(2 * number + 1) * self.per_epoch // (2 * count) for number in range(count)]
        seconds = audio = 0.0
        for number, place in enumerate([evenly[0], *evenly]):
            started = time.perf_counter()
            for batch in self._batches(place, place + 1, features):
                step(batch)
            if number:  # the first warms up
                seconds += time.perf_counter() - started
                audio += batch["audio_seconds"]
        return seconds * self.audio_seconds / audio, count

    def kept(self, reads_mean: bool, cache: str, steps: int) -> tuple[float, float]:
        """Seconds of the first epoch, and of the fastest of `steps` later ones."""
        settings = self.config.features.model_copy(update={"cache": cache, "cache_gib": 64.0})
        featurizer = Featurizer(self.upstream.num_hidden_states, settings, reads_mean)
        features = UpstreamFeatures(self.upstream, featurizer, False).to(self.device)
        features.cache = open_cache(features, settings, self.items, [])
        if not self.first_epochs:
            features.upstream = NoiseUpstream(self.upstream)
        step = self._step(features)
        taken = []
        for epoch in range(1 + steps):
            started = time.perf_counter()
            for batch in self._batches(epoch * self.per_epoch, (epoch + 1) * self.per_epoch, features):
                step(batch)
            features.cache.flush()
            taken.append(time.perf_counter() - started)
        return taken[0], min(taken[1:])

    def _batches(self, start: int, end: int, features: UpstreamFeatures) -> Iterable[dict[str, Any]]:
        """Those of the training steps from `start` to before `end`."""
        return training_loader(
            self.items,
            self.items.lengths,
            self.config.dataloader,
            collate,
            num_batches=end,
            start=start,
            seed=SEED,
            rank=0,
            world_size=1,
            is_known=lambda key: self.items.is_known(key, features.cache),
        )

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


class NoiseUpstream(torch.nn.Module):
    """Noise in place of another upstream's hidden states."""

    def __init__(self, upstream: torch.nn.Module):
        super().__init__()
        self.upstream, self.device = upstream, upstream.device

    def forward(self, signals: Sequence[torch.Tensor], num_hidden_states: int) -> dict[str, Any]:
        """Signals of one length -> as the upstream does."""
        positions = self.upstream.count_positions(len(signals[0]))
        shape = num_hidden_states, len(signals), positions, self.upstream.hidden_size
        states = torch.randn(shape, device=self.device)
        return {"hidden_states": tuple(states), "lengths": torch.full((len(signals),), positions)}


if __name__ == "__main__":
    main()
