"""CTC: loss and decoding against sums and searches over all paths."""

import itertools
import math
import re
import sys

import pytest
import torch

from mynah.downstream.sequence import ctc_losses
from mynah.utility.errors import UserError
from mynah.utility.evaluation.beam import BeamDecoder
from mynah.utility.evaluation.ctc import BLANK, greedy_decode


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator)).log_softmax(-1)


def collapse(path) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]


def all_paths(log_probs: torch.Tensor):
    """(path, its probability) of all paths through (N, C)."""
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        yield path, math.exp(sum(float(log_probs[n, symbol]) for n, symbol in enumerate(path)))


@pytest.mark.parametrize("label", [[1], [1, 2], [2, 2], [1, 2, 1], []])
def test_the_loss_is_the_sum_over_all_paths_that_give_the_label(label):
    log_probs = draw(1, 5, 3)
    total = sum(p for path, p in all_paths(log_probs[0]) if collapse(path) == label)
    [loss] = ctc_losses(log_probs, torch.tensor([5]), [label])
    assert float(loss) == pytest.approx(-math.log(total) / max(1, len(label)), rel=1e-4)


def test_a_batch_has_the_losses_of_its_utterances_whatever_the_padding_holds():
    log_probs, labels, lengths = draw(3, 6, 4), [[1, 2], [3], [1, 1]], torch.tensor([6, 2, 4])
    alone = [
        float(ctc_losses(log_probs[row : row + 1, :n], torch.tensor([n]), [labels[row]]))
        for row, n in enumerate(lengths.tolist())
    ]
    for row, length in enumerate(lengths.tolist()):
        log_probs[row, length:] = 1e4
    assert ctc_losses(log_probs, lengths, labels).tolist() == pytest.approx(alone, rel=1e-5)


def test_a_text_that_does_not_fit_into_the_positions_costs_nothing_and_moves_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    losses = ctc_losses(logits.log_softmax(-1), torch.tensor([3, 3]), [[1, 2, 3, 1], [1, 1]])
    losses.sum().backward()
    assert losses[0] == 0 and losses[1] > 0  # a repeated symbol needs a blank between: just three positions
    assert (logits.grad[0] == 0).all() and logits.grad[1].abs().sum() > 0


def test_greedy_decoding_merges_repetitions_and_tells_where_each_symbol_begins():
    path = [0, 2, 2, 0, 2, 1, 1, 0, 3]
    log_probs = torch.nn.functional.one_hot(torch.tensor([path, path]), 4).float()
    first, second = greedy_decode(log_probs, torch.tensor([9, 5]))
    assert (first.tokens, first.positions) == ([2, 2, 1, 3], [1, 4, 5, 8])
    assert (second.tokens, second.positions) == ([2, 2], [1, 4])


def test_greedy_decoding_is_that_of_a_loop():
    log_probs, lengths = draw(20, 12, 3, seed=1), torch.arange(1, 13).repeat(2)[:20]
    for row, decoded in enumerate(greedy_decode(log_probs, lengths)):
        symbols, before = [], BLANK
        for n in range(int(lengths[row])):
            best = max(range(3), key=lambda symbol, n=n: float(log_probs[row, n, symbol]))
            if best not in (before, BLANK):
                symbols.append((best, n))
            before = best
        assert list(zip(decoded.tokens, decoded.positions, strict=True)) == symbols


def test_an_utterance_of_blanks_says_nothing():
    log_probs = torch.nn.functional.one_hot(torch.zeros(1, 4, dtype=torch.long), 3).float()
    [decoded] = greedy_decode(log_probs, torch.tensor([4]))
    assert (decoded.tokens, decoded.positions) == ([], [])


def test_without_flashlight_the_beam_search_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio.models.decoder", None)
    with pytest.raises(UserError, match=r"flashlight-text.*pip install flashlight-text.*decoder.name=greedy"):
        BeamDecoder(["|", "A"], "|")


SYMBOLS = ["|", "A", "B"]


@pytest.fixture
def flashlight():
    pytest.importorskip("flashlight.lib.text", reason="flashlight-text is an option")


def test_beam_search_finds_the_likeliest_path(flashlight):
    log_probs = draw(1, 5, 4, seed=3)
    path = max(all_paths(log_probs[0]), key=lambda pair: pair[1])[0]
    [decoded] = BeamDecoder(SYMBOLS, "|", beam_size=300)(log_probs, torch.tensor([5]))
    stripped = "".join(SYMBOLS[token - 1] for token in collapse(path)).strip("|")
    assert "".join(SYMBOLS[token - 1] for token in decoded.tokens) == stripped != ""


def test_beam_search_says_only_words_of_the_lexicon_and_prefers_those_of_the_language_model(flashlight, tmp_path):
    (tmp_path / "words.txt").write_text("AB\tA B\nBA extra\nÄB\n")
    unigrams = "-3 <unk> 0\n-99 <s> 0\n-1 </s> 0\n-4 AB 0\n-0.1 BA 0\n".replace(" ", "\t")
    bigrams = "-0.1\t<s> BA\n"
    arpa = f"\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n{unigrams}\n\\2-grams:\n{bigrams}\n\\end\\\n"
    (tmp_path / "lm.arpa").write_text(arpa)
    log_probs = torch.tensor([[[0.02, 0.02, 0.5, 0.46], [0.02, 0.02, 0.46, 0.5]]]).log()
    lengths, lexicon = torch.tensor([2]), str(tmp_path / "words.txt")

    def text(**options) -> str:
        [decoded] = BeamDecoder(SYMBOLS, "|", lexicon=lexicon, **options)(log_probs, lengths)
        assert len(decoded.positions) == len(decoded.tokens)
        return "".join(SYMBOLS[token - 1] for token in decoded.tokens)

    assert text() == "AB"
    assert text(lm=str(tmp_path / "lm.arpa")) == "BA"
    assert text(lm=str(tmp_path / "lm.arpa"), lm_weight=0.0) == "AB"
    for file in ("words.txt", "lm.arpa"):  # in lower case the same is said
        content = (tmp_path / file).read_text()
        (tmp_path / file).write_text(re.sub("[AB]{2}", lambda found: found[0].lower(), content))
    assert (text(), text(lm=str(tmp_path / "lm.arpa"))) == ("AB", "BA")


@pytest.mark.parametrize("key", ["lm", "lexicon"])
def test_files_of_the_beam_search_that_are_not_there_are_named(key, tmp_path):
    with pytest.raises(UserError, match=rf"decoder.{key}: there is no file .*gone"):
        BeamDecoder(SYMBOLS, "|", **{key: str(tmp_path / "gone")})


def test_a_lexicon_without_a_word_of_the_characters_is_told(tmp_path):
    (tmp_path / "words.txt").write_text("XYZ\n")
    with pytest.raises(UserError, match=r"no line of .* begins with a word"):
        BeamDecoder(SYMBOLS, "|", lexicon=str(tmp_path / "words.txt"))


def test_a_broken_language_model_is_told(flashlight, tmp_path):
    (tmp_path / "words.txt").write_text("AB\n")
    (tmp_path / "lm.arpa").write_text("no language model")
    with pytest.raises(UserError, match=r"cannot be built .decoder.lm="):
        BeamDecoder(SYMBOLS, "|", lexicon=str(tmp_path / "words.txt"), lm=str(tmp_path / "lm.arpa"))
