"""The caption transformer against a naive one: one sequence, one 0/1 mask, explicit loops, double precision."""

import math

import pytest
import torch
from torch import Tensor

from mynah.utility.albert.captioning import AlbertForImageCaptioning

CAPTION, VIDEO = 5, 7


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Ids (2, 3, CAPTION), their validity with one caption of padding alone, and image features (2, VIDEO, 6)."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 19, (2, 3, CAPTION), generator=generator)
    lengths = torch.tensor([[5, 3, 4], [2, 5, 0]])
    valid = torch.arange(CAPTION) < lengths[:, :, None]
    return ids.masked_fill(~valid, 0), valid, torch.randn(2, VIDEO, 6, generator=generator)


def normalize(x: Tensor, weights: dict[str, Tensor], name: str, eps: float) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def activate(x: Tensor, name: str) -> Tensor:
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def naive_mask(model: AlbertForImageCaptioning, valid: Tensor) -> Tensor:
    """SwinBERT's matrix for one caption: 1 where row may attend to column, between 0 and 1 among video tokens."""
    length = len(valid)
    mask = torch.zeros(length + VIDEO, length + VIDEO, dtype=torch.float64)
    for row in range(length):
        for column in range(row + 1):
            mask[row, column] = float(valid[column])
        mask[row, length:] = 1
    mask[length:, length:] = 1
    if model.sparse_attention is not None:
        for row in range(VIDEO):
            for column in range(VIDEO):
                if row != column:
                    openness = 1 / (1 + math.exp(-float(model.sparse_attention.table[row, column])))
                    if model.sparse_attention.hard:
                        openness = float(openness >= 0.5)
                    mask[length + row, length + column] = openness
    return mask


def naive(model: AlbertForImageCaptioning, ids: Tensor, valid: Tensor, img_feats: Tensor):
    """ids, valid: (C,), img_feats: (VIDEO, 6) -> scores (C, V), hidden states (C + VIDEO, D), attention maps."""
    config = model.config
    weights = {name: value.double() for name, value in model.state_dict().items()}
    part = "albert.embeddings"
    embedded = torch.stack(
        [
            weights[f"{part}.word_embeddings.weight"][word]
            + weights[f"{part}.position_embeddings.weight"][position]
            + weights[f"{part}.token_type_embeddings.weight"][0]
            for position, word in enumerate(ids.tolist())
        ]
    )
    embedded = normalize(embedded, weights, f"{part}.norm", config.layer_norm_eps)
    if config.model_type == "albert":
        embedded = linear(embedded, weights, f"{part}.mapping")
    x = torch.cat([embedded, linear(img_feats.double(), weights, "albert.img_embedding")])
    bias = (1 - naive_mask(model, valid)) * -10000.0
    width = config.hidden_size // config.num_attention_heads
    states, maps = [x], []
    for index in range(config.num_hidden_layers):
        group = index * config.num_hidden_groups // config.num_hidden_layers
        for inner in range(config.inner_group_num):
            layer = f"albert.encoder.groups.{group}.{inner}"
            query, key, value = linear(x, weights, f"{layer}.attention.query_key_value").chunk(3, dim=-1)
            mixed, map_of_layer = torch.zeros_like(x), torch.zeros(config.num_attention_heads, len(x), len(x))
            for head in range(config.num_attention_heads):
                columns = slice(head * width, (head + 1) * width)
                for row in range(len(x)):
                    scores = key[:, columns] @ query[row, columns] / math.sqrt(width) + bias[row]
                    exponents = torch.exp(scores - scores.max())
                    map_of_layer[head, row] = exponents / exponents.sum()
                    mixed[row, columns] = (exponents / exponents.sum()) @ value[:, columns]
            maps.append(map_of_layer)
            attended = linear(mixed, weights, f"{layer}.attention.output")
            x = normalize(x + attended, weights, f"{layer}.attention_norm", config.layer_norm_eps)
            between = activate(linear(x, weights, f"{layer}.intermediate"), config.hidden_act)
            transformed = linear(between, weights, f"{layer}.output")
            x = normalize(x + transformed, weights, f"{layer}.output_norm", config.layer_norm_eps)
        states.append(x)
    hidden = activate(linear(x[: len(ids)], weights, "predictions.dense"), config.hidden_act)
    hidden = normalize(hidden, weights, "predictions.norm", config.layer_norm_eps)
    scores = hidden @ weights[f"{part}.word_embeddings.weight"].T + weights["predictions.bias"]
    return scores, states, maps


@pytest.mark.parametrize("is_bert", [False, True], ids=["albert", "bert"])
@pytest.mark.parametrize(("table", "hard"), [(None, False), (VIDEO, False), (VIDEO, True)])
@torch.no_grad()
def test_scores_video_states_and_attention_equal_the_naive_model(build_captioner, bert, inputs, is_bert, table, hard):
    ids, valid, img_feats = inputs
    model = build_captioner(table, hard, **(bert if is_bert else {}))
    embedded = model.embed_video(img_feats)
    scores = model(ids, valid, embedded)
    maps = model.video_attention(ids, valid, embedded)
    states = model.encode_video(embedded)
    for clip, caption in ((0, 0), (0, 1), (1, 0)):
        expected = naive(model, ids[clip, caption], valid[clip, caption], img_feats[clip])
        kept = valid[clip, caption]
        torch.testing.assert_close(scores[clip, caption][kept].double(), expected[0][kept], atol=2e-5, rtol=1e-5)
        for state, expected_state in zip(states, expected[1], strict=True):
            torch.testing.assert_close(state[clip].double(), expected_state[CAPTION:], atol=2e-5, rtol=1e-5)
        for attention, expected_map in zip(maps, expected[2], strict=True):
            to_video = expected_map.mean(0)[:CAPTION, CAPTION:]
            torch.testing.assert_close(attention[clip, caption][kept], to_video[kept].float(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_captions_of_a_clip_do_not_know_of_each_other(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO)
    embedded = model.embed_video(img_feats)
    together = model(ids, valid, embedded)
    for caption in range(3):
        alone = model(ids[:, caption : caption + 1], valid[:, caption : caption + 1], embedded)
        torch.testing.assert_close(together[:, caption : caption + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_video_is_encoded_beside_captions_as_it_is_alone(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO, inner_group_num=1)
    embedded = model.embed_video(img_feats)
    beside = []
    for group in model.albert.encoder.groups:
        group[0].register_forward_hook(lambda layer, arguments, output: beside.append(output[:, ids[0].numel() :]))
    model(ids, valid, embedded)
    joint = beside[:]
    assert [state.shape[1] for state in joint] == [VIDEO, VIDEO, 0]  # nobody needs the last
    for state, expected in zip(joint[:2], model.encode_video(embedded)[1:3], strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_video_can_be_encoded_up_to_a_layer(build_captioner, inputs):
    model = build_captioner(VIDEO)
    embedded = model.embed_video(inputs[2])
    some, all_states = model.encode_video(embedded, num_layers=2), model.encode_video(embedded)
    assert len(some) == 3
    assert all(torch.equal(*pair) for pair in zip(some, all_states[:3], strict=True))
    assert torch.equal(some[0], embedded)


@torch.no_grad()
def test_word_pieces_see_none_that_come_later(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner()
    embedded = model.embed_video(img_feats)
    changed = ids.clone()
    changed[0, 0, 3] += 1 if ids[0, 0, 3] < 18 else -1
    before, after = model(ids, valid, embedded), model(changed, valid, embedded)
    torch.testing.assert_close(after[0, 0, :3], before[0, 0, :3], atol=1e-6, rtol=0)
    assert not torch.allclose(after[0, 0, 3:], before[0, 0, 3:], atol=0.1)


@torch.no_grad()
def test_padding_of_captions_does_not_change_valid_word_pieces(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO)
    embedded = model.embed_video(img_feats)
    scores = model(ids, valid, embedded)
    for clip, caption in valid.any(-1).nonzero().tolist():
        length = int(valid[clip, caption].sum())
        one = slice(caption, caption + 1)
        alone = model(ids[clip, None, one, :length], valid[clip, None, one, :length], embedded[clip, None])
        torch.testing.assert_close(scores[clip, caption, :length], alone[0, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("table", [None, VIDEO])
@torch.no_grad()
def test_padding_of_videos_does_not_change_captions_nor_valid_tokens(build_captioner, inputs, table):
    ids, valid, img_feats = inputs
    model = build_captioner(table)
    embedded = model.embed_video(img_feats)
    video_valid = torch.arange(VIDEO) < torch.tensor([[VIDEO], [4]])
    scores, states = model(ids, valid, embedded, video_valid), model.encode_video(embedded, video_valid)
    short = build_captioner(None if table is None else 4)
    if table is not None:
        short.sparse_attention.table.data = model.sparse_attention.table.data[:4, :4]
    for name, parameter in model.named_parameters():
        if "table" not in name:
            short.get_parameter(name).data = parameter.data
    alone = short(ids[1:], valid[1:], embedded[1:, :4])
    torch.testing.assert_close(scores[1:, :2], alone[:, :2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[:1], model(ids[:1], valid[:1], embedded[:1]), atol=1e-5, rtol=1e-5)
    for state, expected in zip(states, short.encode_video(embedded[1:, :4]), strict=True):
        torch.testing.assert_close(state[1:, :4], expected, atol=1e-5, rtol=1e-5)
    assert torch.all(model.video_attention(ids, valid, embedded, video_valid)[:, 1, :, :, 4:] == 0)


@torch.no_grad()
def test_scores_of_targets_alone_are_those_of_all(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO)
    embedded = model.embed_video(img_feats)
    targets = valid & (ids % 2 == 0)
    scores = model(ids, valid, embedded, targets=targets)
    assert scores.shape == (int(targets.sum()), 19)
    torch.testing.assert_close(scores, model(ids, valid, embedded)[targets], atol=1e-5, rtol=1e-5)


def test_padding_gives_no_gradient_that_is_not_finite(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO).train()
    video_valid = torch.arange(VIDEO) < torch.tensor([[VIDEO], [1]])
    embedded = model.embed_video(img_feats)
    scores = model(ids, valid, embedded, video_valid, targets=valid)
    (scores.logsumexp(-1).mean() + model.sparsity()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_gradient_of_the_sparse_attention_equals_finite_differences(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO, num_hidden_layers=2, inner_group_num=1).double()
    embedded = model.embed_video(img_feats.double()).detach()

    def loss(table: Tensor) -> Tensor:
        arguments = (ids[:1], valid[:1], embedded[:1])
        return torch.func.functional_call(model, {"sparse_attention.table": table}, arguments).square().sum()

    table = model.sparse_attention.table.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, table, atol=1e-4, rtol=1e-3)
    loss(table).backward()
    assert table.grad.masked_fill(torch.eye(VIDEO, dtype=torch.bool), 1.0).all()
    assert not table.grad.diagonal().any()


def test_hardened_attention_learns_from_sparsity_alone(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO, hard_attention=True)
    table = model.sparse_attention.table
    model(ids, valid, model.embed_video(img_feats)).sum().backward()
    assert table.grad is None
    model.sparsity().backward()
    assert table.grad.any()


def test_without_sparse_attention_sparsity_is_zero(build_captioner):
    assert float(build_captioner().sparsity()) == 0


@pytest.mark.parametrize("hard", [False, True])
@torch.no_grad()
def test_bfloat16_keeps_the_mask(build_captioner, inputs, hard):
    """With autocast's rounding, and nothing leaks from video tokens that are closed."""
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO, hard)
    embedded = model.embed_video(img_feats)
    with torch.autocast("cpu", torch.bfloat16):
        scores, states = model(ids, valid, embedded), model.encode_video(embedded)
    assert scores.dtype == torch.bfloat16
    torch.testing.assert_close(scores.float()[valid], model(ids, valid, embedded)[valid], atol=0.3, rtol=0.1)
    torch.testing.assert_close(states[-1].float(), model.encode_video(embedded)[-1], atol=0.15, rtol=0.05)
    if hard:
        model.sparse_attention.table.data.fill_(-1.0)
        other = torch.cat([embedded[:, :1], embedded[:, 1:].flip(1)], 1)
        with torch.autocast("cpu", torch.bfloat16):
            alone, still = model.encode_video(embedded)[-1][:, 0], model.encode_video(other)[-1][:, 0]
        assert torch.equal(alone, still)


def test_features_may_come_embedded(build_captioner):
    model = build_captioner(img_feature_dim=None)
    features = torch.randn(2, VIDEO, 16)
    assert torch.equal(model.embed_video(features), features)


def test_what_does_not_fit_is_said(build_captioner, inputs):
    ids, valid, img_feats = inputs
    model = build_captioner(VIDEO)
    embedded = model.embed_video(img_feats)
    with pytest.raises(ValueError, match=r"4 video tokens.* is of 7"):
        model(ids, valid, embedded[:, :4])
    with pytest.raises(ValueError, match=r"4 video tokens.* is of 7"):
        model.encode_video(embedded[:, :4])
    long = torch.ones(2, 1, 25, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"25 word pieces.* 24"):
        model(long, long.bool(), embedded)
