"""The encoder against Hugging Face's ALBERT and BERT with the same weights, and against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel, BertConfig, BertModel

from mynah.utility.configuration.problems import validate
from mynah.utility.nn.encoder import EncoderConfig, TransformerEncoder, initialize_weights, sinusoid_positions
from mynah.utility.nn.padding import lengths_to_mask

SMALL = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PEER_OPTIONS = {"vocab_size": 4, "attn_implementation": "eager"}


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    """(B, N, D) and the (B,) valid positions."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 11, 32, generator=generator), torch.tensor([11, 7, 1])


def build(**fields) -> TransformerEncoder:
    return TransformerEncoder(EncoderConfig(**{**SMALL, **fields})).eval()


def scatter_weights(peer: nn.Module) -> None:
    """Weights far from their initial values, biases and LayerNorms included, so that none can be confused."""
    generator = torch.Generator().manual_seed(1)
    for parameter in peer.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def copy_linear(ours: nn.Module, *theirs: nn.Module) -> None:
    """Copy a linear layer or LayerNorm; several are laid one after the other."""
    ours.weight.data.copy_(torch.cat([part.weight for part in theirs]))
    ours.bias.data.copy_(torch.cat([part.bias for part in theirs]))


def copy_albert(ours: TransformerEncoder, theirs: nn.Module) -> None:
    for group, their_group in zip(ours.groups, theirs.albert_layer_groups, strict=True):
        for layer, their_layer in zip(group, their_group.albert_layers, strict=True):
            attention = their_layer.attention
            copy_linear(layer.attention.query_key_value, attention.query, attention.key, attention.value)
            copy_linear(layer.attention.output, attention.dense)
            copy_linear(layer.attention_norm, attention.LayerNorm)
            copy_linear(layer.intermediate, their_layer.ffn)
            copy_linear(layer.output, their_layer.ffn_output)
            copy_linear(layer.output_norm, their_layer.full_layer_layer_norm)


def copy_bert(ours: TransformerEncoder, theirs: nn.Module) -> None:
    for (layer,), their_layer in zip(ours.groups, theirs.layer, strict=True):
        attention = their_layer.attention.self
        copy_linear(layer.attention.query_key_value, attention.query, attention.key, attention.value)
        copy_linear(layer.attention.output, their_layer.attention.output.dense)
        copy_linear(layer.attention_norm, their_layer.attention.output.LayerNorm)
        copy_linear(layer.intermediate, their_layer.intermediate.dense)
        copy_linear(layer.output, their_layer.output.dense)
        copy_linear(layer.output_norm, their_layer.output.LayerNorm)


def assert_same(ours: TransformerEncoder, peer: nn.Module, inputs: tuple[Tensor, Tensor], inner: int = 1) -> None:
    """Hidden states and attention maps of valid positions agree, with and without the fused attention."""
    x, lengths = inputs
    valid = lengths_to_mask(lengths)
    with torch.no_grad():
        theirs = peer(inputs_embeds=x, attention_mask=valid.long(), output_hidden_states=True, output_attentions=True)
        # The peer embeds its input (positions, LayerNorm); what enters its first layer enters ours.
        states, attentions = ours(theirs.hidden_states[0], valid, return_attentions=True)
        fused, none = ours(theirs.hidden_states[0], valid)
    assert none == ()
    assert len(attentions) == len(theirs.attentions) == SMALL["num_hidden_layers"] * inner
    assert len(states) == len(fused) == SMALL["num_hidden_layers"] + 1
    expected_states = theirs.hidden_states[::inner]
    for state, fused_state, expected in zip(states, fused, expected_states, strict=True):
        torch.testing.assert_close(state[valid], expected[valid], atol=1e-5, rtol=0)
        torch.testing.assert_close(fused_state[valid], expected[valid], atol=1e-5, rtol=0)
    for attention, expected in zip(attentions, theirs.attentions, strict=True):
        queries = valid[:, None, :, None].expand_as(expected)
        torch.testing.assert_close(attention[queries], expected[queries], atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize(("groups", "inner"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_hidden_states_and_attention_equal_albert(inputs, groups, inner, activation):
    config = {**SMALL, "num_hidden_groups": groups, "inner_group_num": inner, "hidden_act": activation}
    peer = AlbertModel(AlbertConfig(**config, embedding_size=32, **PEER_OPTIONS), add_pooling_layer=False).eval()
    scatter_weights(peer)
    ours = build(num_hidden_groups=groups, inner_group_num=inner, hidden_act=activation)
    copy_albert(ours, peer.encoder)
    assert_same(ours, peer, inputs, inner)


def test_hidden_states_and_attention_equal_bert(inputs):
    peer = BertModel(BertConfig(**SMALL, hidden_act="gelu", **PEER_OPTIONS), add_pooling_layer=False).eval()
    scatter_weights(peer)
    ours = build(num_hidden_groups=SMALL["num_hidden_layers"])
    copy_bert(ours, peer.encoder)
    assert_same(ours, peer, inputs)


def test_padded_positions_do_not_change_valid_ones(inputs):
    x, lengths = inputs
    encoder = build()
    states, _ = encoder(x, lengths_to_mask(lengths))
    for index, length in enumerate(lengths):
        alone, _ = encoder(x[index : index + 1, :length])
        torch.testing.assert_close(states[-1][index, :length], alone[-1][0], atol=1e-5, rtol=0)


def naive_attention(query: Tensor, key: Tensor, value: Tensor, scores_added: Tensor) -> tuple[Tensor, Tensor]:
    """(B, heads, N, d) each, scores_added: (B, heads, N, N) -> mixed values and weights, query by query."""
    mixed, weights = torch.zeros_like(query), torch.zeros_like(scores_added)
    for where in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])).tolist():
        clip, head, row = where
        scores = key[clip, head] @ query[clip, head, row] / query.shape[-1] ** 0.5 + scores_added[clip, head, row]
        open_keys = scores > float("-inf")
        if open_keys.any():
            weights[clip, head, row, open_keys] = scores[open_keys].softmax(-1)
            mixed[clip, head, row] = weights[clip, head, row] @ value[clip, head]
    return mixed, weights


@pytest.mark.parametrize("return_attentions", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float", "float by head"])
def test_masks_say_who_attends_to_whom(inputs, monkeypatch, kind, return_attentions):
    """Every layer's attention is that of a loop over queries, of which some may attend to nothing."""
    x, lengths = inputs
    valid = lengths_to_mask(lengths)
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(1, 1, 11, 11, generator=generator) < 0.5
    mask[0, 0, 4] = False
    added = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    if kind != "bool":
        added = mask = torch.randn(1, 4 if kind == "float by head" else 1, 11, 11, generator=generator)
        mask[0, 0, 4] = float("-inf")
    added = added.expand(3, 4, -1, -1).masked_fill(~valid[:, None, None], float("-inf"))
    encoder = build()
    with torch.no_grad():
        states, attentions = encoder(x, valid, return_attentions, mask)
        maps = []

        def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
            mixed, weights = naive_attention(query, key, value, added)
            maps.append(weights)
            return mixed

        for state, group in zip(states[1:], encoder.passes(), strict=True):
            x = group[0](x, attend)
            torch.testing.assert_close(state, x, atol=1e-5, rtol=0)
    for attention, weights in zip(attentions, maps, strict=return_attentions):
        torch.testing.assert_close(attention, weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("return_attentions", [False, True])
@pytest.mark.parametrize("is_float", [False, True])
def test_queries_that_may_attend_to_nothing_have_finite_gradients(inputs, is_float, return_attentions):
    x, lengths = inputs
    mask = torch.ones(1, 1, 11, 11, dtype=torch.bool).tril(-1)  # the first attends to nothing
    if is_float:
        mask = torch.zeros(1, 1, 11, 11).masked_fill(~mask, float("-inf")).requires_grad_()
    encoder, x = build(), x.clone().requires_grad_()
    states, _ = encoder(x, lengths_to_mask(lengths), return_attentions, mask)
    states[-1].square().sum().backward()
    for tensor in (x, *encoder.parameters(), *([mask] if is_float else [])):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("return_attentions", [False, True])
def test_float_masks_work_under_autocast(inputs, return_attentions):
    """-10000 closes, as in BERT, in bfloat16 too: what is closed does not matter at all."""
    x, _ = inputs
    encoder = build()
    mask = torch.zeros(1, 1, 11, 11)
    mask[..., 5:] = -10000.0
    other = torch.cat([x[:, :5], x[:, 5:] + 1], 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (states, _), (changed, _) = (encoder(y, None, return_attentions, mask) for y in (x, other))
    assert torch.equal(states[-1][:, :5], changed[-1][:, :5])
    with torch.no_grad():
        expected, _ = encoder(x[:, :5])
    torch.testing.assert_close(states[-1][:, :5].float(), expected[-1], atol=0.05, rtol=0)


def test_first_layers_are_those_of_all(inputs):
    encoder = build(num_hidden_groups=2)
    states, _ = encoder(inputs[0])
    for num_layers in (0, 2, 4):
        first, maps = encoder(inputs[0], None, True, num_layers=num_layers)
        assert len(first) == num_layers + 1
        assert len(maps) == num_layers
        for state, expected in zip(first, states[: num_layers + 1], strict=True):
            torch.testing.assert_close(state, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("probability", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_acts_in_training_alone(inputs, probability):
    encoder = build(**{probability: 0.5})
    for return_attentions in (False, True):
        once, again = (encoder(inputs[0], None, return_attentions)[0][-1] for _ in range(2))
        assert torch.equal(once, again)
        encoder.train()
        once, again = (encoder(inputs[0], None, return_attentions)[0][-1] for _ in range(2))
        assert not torch.allclose(once, again)
        encoder.eval()


def count(**fields) -> int:
    with torch.device("meta"):
        encoder = TransformerEncoder(EncoderConfig(**fields))
    return sum(parameter.numel() for parameter in encoder.parameters())


def test_number_of_parameters_is_that_of_the_distinct_layers():
    """768 wide, 3072 inside: four square projections, two of the feed-forward, their biases, two LayerNorms."""
    layer = 4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 2 * (2 * 768)
    assert count(num_hidden_layers=6, num_hidden_groups=6) == 6 * layer == 42_527_232
    assert count(num_hidden_layers=6, num_hidden_groups=1) == layer == 7_087_872
    assert count(num_hidden_layers=12, num_hidden_groups=1) == layer
    assert count(num_hidden_layers=12, num_hidden_groups=3, inner_group_num=2) == 6 * layer


def test_weights_of_a_group_receive_the_gradients_of_all_its_layers(inputs):
    """A shared layer's gradient is the sum of the gradients that its copies would have had."""
    shared, copies = build(num_hidden_groups=1), build(num_hidden_groups=4)
    for group in copies.groups:
        group.load_state_dict(shared.groups[0].state_dict())
    for encoder in (shared, copies):
        encoder(inputs[0])[0][-1].square().sum().backward()
    for name, parameter in shared.groups[0].named_parameters():
        summed = sum(group.get_parameter(name).grad for group in copies.groups)
        torch.testing.assert_close(parameter.grad, summed, atol=1e-3, rtol=1e-3, msg=name)


def test_initial_weights_are_normal_with_the_range_given():
    torch.manual_seed(0)
    encoder = build(hidden_size=128, intermediate_size=512)
    encoder.apply(lambda module: initialize_weights(module, 0.02))
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            assert torch.all(parameter == float(name.endswith("weight"))), name
        elif name.endswith("bias"):
            assert torch.all(parameter == 0), name
        else:
            assert abs(parameter.std() - 0.02) < 1e-3, name
            assert abs(parameter.mean()) < 1e-3, name


@pytest.mark.parametrize(("num_positions", "width"), [(500, 768), (3000, 7)])
def test_positions_equal_the_formula(num_positions, width):
    expected = [
        [
            (math.sin if channel % 2 == 0 else math.cos)(position / 10000 ** (2 * (channel // 2) / width))
            for channel in range(width)
        ]
        for position in range(num_positions)
    ]
    actual = sinusoid_positions(num_positions, width)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_groups", 7),
        ("inner_group_num", 0),
        ("num_attention_heads", 5),
        ("hidden_act", "swish7"),
        ("layer_norm_eps", 0.0),
        ("hidden_dropout_prob", 1.0),
    ],
)
def test_impossible_encoders_are_named(field, value):
    assert not validate(EncoderConfig, {})[1]
    assert [key for key, _ in validate(EncoderConfig, {field: value})[1]] == [field]
