"""Every file of weights that comes with Mynah: it loads, gives features, and has a card that is filled in."""

import pytest
import torch

import mynah
from mynah.upstream.cards import PLACEHOLDER
from mynah.utility.experiments.exported import read_exported
from mynah.utility.experiments.integrity import file_digest
from mynah.utility.experiments.shipped import CARD, WEIGHTS, shipped_weights

FILES = [(upstream, name) for upstream, names in shipped_weights().items() for name in names]


def test_every_file_of_the_folder_is_found_by_a_name_and_has_a_card():
    files = sorted(path for path in WEIGHTS.iterdir() if path.name != "README.md")
    found = {path for names in shipped_weights().values() for path in names.values()}
    assert files == sorted([*found, *(path.with_suffix(CARD) for path in found)])


@pytest.mark.parametrize(("upstream", "name"), FILES, ids="-".join)
def test_weights_that_come_with_mynah(upstream, name):
    path = shipped_weights()[upstream][name]
    assert path.stat().st_size < 8e6
    read = read_exported(path)
    assert read.metadata["upstream"] == upstream
    assert read.provenance["data"]
    assert all(corpus["license"].strip() for corpus in read.provenance["data"].values())
    expert = mynah.load(upstream, ckpt=name).eval()
    with torch.no_grad():
        states = expert([0.1 * torch.randn(16000), 0.1 * torch.randn(9000)])["hidden_states"]
    assert len(states) == expert.num_hidden_states
    assert all(state.isfinite().all() and state.std() > 0 for state in states)
    card = path.with_suffix(CARD).read_text(encoding="utf-8")
    assert PLACEHOLDER not in card
    assert file_digest(path) in card, "the card is of another file"
