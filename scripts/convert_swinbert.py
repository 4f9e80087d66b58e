"""Turn SwinBERT's released model.bin into a checkpoint that -k takes.

python scripts/convert_swinbert.py model.bin vocab.txt swinbert.ckpt
python run_downstream.py -n cap -u vidswin_albert -d vatex_caption -k swinbert.ckpt -o datarc.file_path=/data/VATEX
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mynah.upstream.vidswin_albert.swinbert import convert_swinbert
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import save_atomically


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="SwinBERT's model.bin")
    parser.add_argument("vocabulary", type=Path, help="vocab.txt of bert-base-uncased")
    parser.add_argument("output", type=Path, help="the checkpoint to write")
    parser.add_argument("--frame-size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--num-frames", type=int, help="only needed where there is no mask table")
    arguments = parser.parse_args()
    for flag, value in (("--frame-size", arguments.frame_size), ("--num-frames", arguments.num_frames)):
        if value is not None and value < 1:
            parser.error(f"{flag}: expected 1 or more, got {value}")
    if arguments.output.is_dir():
        parser.error(f"{arguments.output}: a folder; give the name of the checkpoint to write")
    try:
        checkpoint = convert_swinbert(
            arguments.weights, arguments.vocabulary, arguments.frame_size, arguments.num_frames
        )
        save_atomically(checkpoint, arguments.output)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
