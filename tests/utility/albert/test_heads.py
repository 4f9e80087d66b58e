"""The heads and their losses against Hugging Face's with the same weights, and against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.heads import (
    AlbertForPreTraining,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
)
from mynah.utility.albert.huggingface import convert_from_huggingface, load_parts
from tests.utility.albert.peers import VARIANTS, build_peer, close, texts


def copy_of(peer, model_class):
    config = AlbertConfig.from_huggingface(peer.config.to_dict())
    model = model_class(config).eval()
    load_parts(model, convert_from_huggingface(peer.state_dict(), config), "the peer")
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_pretraining_is_hugging_faces(variant):
    peer = build_peer(variant, "ForPreTraining")
    ids, valid, segments = texts()
    labels = torch.where(torch.rand(ids.shape) < 0.5, ids, -100)
    labels[0, 0] = 7  # one at least
    order = torch.tensor([0, 1, 1])
    order_name = "next_sentence_label" if variant.startswith("bert") else "sentence_order_label"
    theirs = peer(ids, valid.long(), segments, labels=labels, **{order_name: order})
    ours = copy_of(peer, AlbertForPreTraining)(ids, valid, segments, labels, order)
    assert close(ours.prediction_logits[valid], theirs.prediction_logits[valid])
    their_order = theirs.seq_relationship_logits if variant.startswith("bert") else theirs.sop_logits
    assert close(ours.sop_logits, their_order)
    assert close(ours.loss, theirs.loss)


@torch.no_grad()
def test_pretraining_losses_count_what_is_labelled():
    model = AlbertForPreTraining(small()).eval()
    ids, valid, _ = texts()
    labels, order = torch.where(valid, ids, -100), torch.tensor([1, 0, 1])
    both, words, swapped = (
        model(ids, valid, labels=one, sentence_order_label=two).loss
        for one, two in ((labels, order), (labels, None), (None, order))
    )
    assert both.item() == pytest.approx(words.item() + swapped.item(), rel=1e-5)
    assert model(ids, valid).loss is None
    nothing = torch.full_like(labels, -100)
    assert model(ids, valid, labels=nothing).loss == 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_labels", [1, 4])
@torch.no_grad()
def test_classification_is_hugging_faces(variant, num_labels):
    peer = build_peer(variant, "ForSequenceClassification", num_labels=num_labels)
    ids, valid, segments = texts()
    labels = torch.tensor([0.5, -1.0, 2.0]) if num_labels == 1 else torch.tensor([3, 0, 1])
    theirs = peer(ids, valid.long(), segments, labels=labels)
    ours = copy_of(peer, AlbertForSequenceClassification)(ids, valid, segments, labels)
    assert close(ours.logits, theirs.logits)
    assert close(ours.loss, theirs.loss)


@torch.no_grad()
def test_several_labels_at_a_time():
    model = AlbertForSequenceClassification(small(num_labels=3)).eval()
    ids, valid, segments = texts()
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]])
    output = model(ids, valid, segments, labels)
    chances = output.logits.sigmoid()
    expected = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model(ids, valid).loss is None


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_question_answering_is_hugging_faces(variant):
    peer = build_peer(variant, "ForQuestionAnswering")
    ids, valid, segments = texts()
    start, end = torch.tensor([1, 2, 0]), torch.tensor([4, 12, 0])  # 12 is outside, as in a text that was cut
    theirs = peer(ids, valid.long(), segments, start_positions=start.clone(), end_positions=end.clone())
    ours = copy_of(peer, AlbertForQuestionAnswering)(ids, valid, segments, start, end)
    assert close(ours.start_logits[valid], theirs.start_logits[valid])
    assert close(ours.end_logits[valid], theirs.end_logits[valid])
    assert close(ours.loss, theirs.loss)


@torch.no_grad()
def test_answers_outside_the_text_do_not_count():
    model = AlbertForQuestionAnswering(small()).eval()
    ids, _, _ = texts()
    start = torch.tensor([3, -1, 9])
    output = model(ids, start_positions=start, end_positions=torch.tensor([-1, 30, 9]))
    expected = F.cross_entropy(output.start_logits[:1], start[:1]) / 2
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert math.isfinite(output.loss) and model(ids).loss is None


def small(**fields) -> AlbertConfig:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    return AlbertConfig(vocab_size=40, embedding_size=8, max_position_embeddings=20, **sizes, **fields)
