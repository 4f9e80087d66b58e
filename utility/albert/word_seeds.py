"""Candidates for word pieces, for small corpora.

sentencepiece proposes only what occurs in several different words, and so never a whole word like "red" of a corpus
in which nothing else contains it: of a thousand captions with few different words, letters are left. Here every part
of a word counts as often as the word occurs.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SPACE = "▁"
MAX_PIECE, MAX_WORD = 16, 24
"""Characters. For longer words, and languages without spaces, sentencepiece finds its own candidates."""
MAX_SEEDS = 1_000_000


@contextmanager
def word_seeds(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    """The option of sentencepiece's trainer that names a file of seeds, or no option where the words are too long."""
    words = Counter(word for line in lines for word in line.split())
    if sum(map(len, words)) > MAX_WORD / 2 * len(words):
        yield {}
        return
    seeds: Counter[str] = Counter()
    for word, count in words.items():
        for piece in _parts(SPACE + word[:MAX_WORD]):
            seeds[piece] += count
    # By count, then by name: the same file for the same texts.
    ranked = sorted((entry for entry in seeds.items() if entry[1] > 1), key=lambda entry: (-entry[1], entry[0]))
    if not ranked:
        yield {}
        return
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.writelines(f"{piece}\t{count}\n" for piece, count in ranked[:MAX_SEEDS])
        file.flush()
        yield {"seed_sentencepieces_file": file.name}


def without_seeds_path(proto: bytes) -> bytes:
    """A trained model without the name of the file of seeds, which is another one each time."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # needs protobuf, which training has

    model = ModelProto.FromString(proto)
    model.trainer_spec.ClearField("seed_sentencepieces_file")
    return model.SerializeToString(deterministic=True)


def _parts(word: str) -> Iterator[str]:
    """Everything of at least two characters within a word."""
    for start in range(len(word)):
        for end in range(start + 2, min(len(word), start + MAX_PIECE) + 1):
            yield word[start:end]
