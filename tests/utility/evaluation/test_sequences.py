"""Error rates of transcripts against an own dynamic program and torchmetrics; the table and the picture."""

import csv
import math
from collections import Counter

import numpy as np
import pytest
import torchmetrics.functional.text as torchmetrics

from mynah.utility.evaluation.edits import NOTHING, count_edits, draw_errors
from mynah.utility.evaluation.sequences import RATES, error_rates, record_sequences, write_transcripts

WORDS = ["the", "cat", "sat", "mat", "a"]


def corpus(count: int = 40, seed: int = 0) -> tuple[list[str], list[str]]:
    """References of 1 to 8 words, and hypotheses with words changed, dropped and added."""
    draw = np.random.default_rng(seed)
    references = [list(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(count)]
    hypotheses = []
    for words in references:
        kept = [draw.choice(WORDS) if draw.random() < 0.2 else word for word in words if draw.random() > 0.2]
        hypotheses.append([*kept, *draw.choice(WORDS, draw.integers(0, 3))])
    return [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]


def distance(reference, hypothesis) -> int:
    """Levenshtein's, row by row."""
    row = list(range(len(hypothesis) + 1))
    for i, meant in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, said in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (meant != said)))
    return row[-1]


def records_of(references, hypotheses) -> dict[str, list]:
    records: dict[str, list] = {}
    names = [f"{number}.wav" for number in range(len(references))]
    record_sequences(names, references, hypotheses, [0.5] * len(names), records)
    return records


def test_rates_are_edits_over_units_of_the_whole_corpus():
    references, hypotheses = corpus()
    metrics = error_rates(records_of(references, hypotheses), ("wer", "cer"))
    for rate, split, peer in (
        ("wer", str.split, torchmetrics.word_error_rate),
        ("cer", list, torchmetrics.char_error_rate),
    ):
        pairs = [(split(a), split(b)) for a, b in zip(references, hypotheses, strict=True)]
        expected = sum(distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
        assert metrics[rate] == pytest.approx(expected)
        assert metrics[rate] == pytest.approx(float(peer(hypotheses, references)), abs=1e-6)
    assert sum(metrics[kind] for kind in ("substitutions", "insertions", "deletions")) == pytest.approx(
        metrics["wer"]
    )
    assert metrics["loss"] == 0.5


def test_phones_count_as_words_do():
    references, hypotheses = corpus(seed=1)
    records = records_of(references, hypotheses)
    assert error_rates(records, ("per",))["per"] == error_rates(records, ("wer",))["wer"]


def test_empty_references_count_by_their_insertions():
    records = records_of(["", "a b c", ""], ["x", "a c", ""])
    assert error_rates(records, ("wer",))["wer"] == pytest.approx(2 / 3)
    assert math.isnan(error_rates(records_of([""], ["x"]), ("wer",))["wer"])


def test_edits_are_counted_by_what_was_taken_for_what():
    aligned = RATES["per"](["A B C", "A", "B"], ["A X C D", "", "X"])
    assert count_edits(aligned) == Counter(
        {("substitutions", "B", "X"): 2, ("insertions", NOTHING, "D"): 1, ("deletions", "A", NOTHING): 1}
    )


def test_the_table_has_each_utterance_with_its_own_rate(tmp_path):
    records = records_of(["a b", "", 'say, "so"'], ["a", "x", 'say, "so"'])
    with write_transcripts(tmp_path / "t.csv", records, "wer").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wer"] for row in rows] == ["0.5000", "", "0.0000"]
    assert rows[2]["hypothesis"] == 'say, "so"'


@pytest.mark.parametrize("texts", [corpus(), (["a $b^"], ["a $b^"]), ([""], [""]), (["x" * 300], ["$\\frac"])])
def test_the_picture_is_drawn_of_any_texts(texts, tmp_path):
    path = draw_errors(records_of(*texts), ("wer", "cer"), tmp_path / "errors.png", "test: 1 $ utterance")
    assert path.read_bytes().startswith(b"\x89PNG")
