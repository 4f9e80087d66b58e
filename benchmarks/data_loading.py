"""How fast batches of crops come from files: what the data side can feed to training, nothing else running.

Without --corpus it reads FLAC files of 15 s that it writes to a temporary folder first, so they come from memory
rather than from a disk; of each, a random crop is read.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from report import SAMPLE_RATE, Report, Row, build_parser, load_upstream, peak_mib, prepare
from torch.utils.data import DataLoader

from mynah.utility.acoustic.dataset import MaskedSpeechDataset, collate
from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.audio.corpus import SpeechDataset, scan_corpora
from mynah.utility.training.config import LoaderConfig
from mynah.utility.training.loaders import training_loader

FILE_SECONDS = 15
NUM_FILES = 96


def main() -> None:
    parser = build_parser(__doc__, steps=40, upstream="aalbert")
    parser.add_argument("--batch-size", type=int, default=12, help="utterances")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each crop")
    parser.add_argument("--workers", type=int, default=LoaderConfig().num_workers, help="reading processes")
    parser.add_argument("--corpus", type=Path, help="folder of audio to read instead")
    arguments = prepare(parser)
    with tempfile.TemporaryDirectory() as folder:
        corpus = arguments.corpus or write_files(Path(folder))
        loader = build_loader(corpus, arguments)
        batches = iter(loader)
        audio_seconds = [next(batches)["audio_seconds"]]  # the first one waits for the processes to start
        started = time.perf_counter()
        audio_seconds += [batch["audio_seconds"] for batch in batches]
        elapsed = time.perf_counter() - started
    what = f"{arguments.batch_size} crops of up to {arguments.seconds:g} s, {arguments.workers} processes"
    report = Report(arguments)
    rate = sum(audio_seconds[1:]) / elapsed
    report.add(Row(what, elapsed / arguments.steps, rate, peak_mib=peak_mib("cpu")))
    report.print()


def build_loader(corpus: Path, arguments) -> DataLoader:
    """The loader of pretraining over the corpus, mask plans included."""
    utterances = scan_corpora(
        {"corpus": str(corpus)}, min_samples=SAMPLE_RATE, max_bad_fraction=0.05, log_path=None, progress=False
    )
    speech = SpeechDataset(utterances, round(arguments.seconds * SAMPLE_RATE), seed=0)
    model = load_upstream(arguments.upstream).model
    return training_loader(
        MaskedSpeechDataset(speech, model, MaskingConfig()),
        speech.lengths,
        LoaderConfig().replace(batch_size=arguments.batch_size, num_workers=arguments.workers),
        collate,
        num_batches=arguments.steps + 1,
        start=0,
        seed=0,
        rank=0,
        world_size=1,
    )


def write_files(folder: Path) -> Path:
    """Pulsing harmonics over noise: they compress about as speech does."""
    generator = np.random.default_rng(0)
    time_axis = np.arange(FILE_SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    for index in range(NUM_FILES):
        phase = 2 * np.pi * generator.uniform(90, 250) * time_axis
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6)) * np.sin(9 * time_axis).clip(0)
        samples = 0.1 * voice + 0.002 * generator.standard_normal(len(time_axis))
        soundfile.write(folder / f"{index}.flac", samples, SAMPLE_RATE)
    return folder


if __name__ == "__main__":
    main()
