"""Generation against loops over the whole forward pass, exhaustive search, and Hugging Face's beam search."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.generation import GenerationConfig, generate
from mynah.utility.configuration.problems import validate
from mynah.utility.errors import UserError

VIDEO, CLS, SEP, MASK = 6, 2, 3, 4
WORDS = range(5, 19)


@pytest.fixture
def embedded() -> Tensor:
    """Eight clips (8, VIDEO, 16)."""
    return torch.randn(8, VIDEO, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(build_captioner, embedded) -> AlbertForImageCaptioning:
    """One whose captions differ in words and length: no word is more probable than others on the average."""
    model = build_captioner(VIDEO)
    for name, parameter in model.named_parameters():
        if name.endswith("query_key_value.weight"):
            parameter.data.mul_(2.0)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 19, (8, 20, 9), generator=generator)
    ids.masked_fill_(torch.rand(ids.shape, generator=generator) < 0.5, MASK)
    with torch.no_grad():
        scores = model(ids, torch.ones_like(ids, dtype=torch.bool), embedded, targets=ids == MASK)
    model.predictions.bias.data.sub_(scores.mean(0))
    model.predictions.bias.data[SEP] += 1.4
    return model


@torch.no_grad()
def next_log_probabilities(
    model: AlbertForImageCaptioning, words: list[int], clip: Tensor, config: GenerationConfig
) -> dict[int, float]:
    """clip: (N, 16) -> log-probability of every word that may follow, from a forward pass of its own."""
    ids = torch.tensor([[[CLS, *words, MASK]]])
    scores = model(ids, torch.ones_like(ids, dtype=torch.bool), clip[None])[0, 0, -1].tolist()
    allowed = [*WORDS, *([SEP] if len(words) >= config.min_length else [])]
    for word in set(words):
        penalty = config.repetition_penalty
        scores[word] = scores[word] / penalty if scores[word] > 0 else scores[word] * penalty
    total = math.log(sum(math.exp(scores[word]) for word in allowed))
    return {word: scores[word] - total for word in allowed}


def greedy(model: AlbertForImageCaptioning, clip: Tensor, config: GenerationConfig) -> tuple[list[int], list[float]]:
    """The words of greedy search and the log-probability of each, [SEP]'s included."""
    words, log_probabilities = [], []
    while len(words) < config.max_length:
        following = next_log_probabilities(model, words, clip, config)
        best = max(following, key=following.get)
        log_probabilities.append(following[best])
        if best == SEP:
            break
        words.append(best)
    return words, log_probabilities


GREEDY = [
    {},
    {"repetition_penalty": 1.8},
    {"min_length": 6, "max_length": 6},
    {"min_length": 4, "repetition_penalty": 0.7},
]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("options", GREEDY)
def test_one_beam_takes_the_most_probable_word_each_time(model, vocabulary, embedded, options, use_cache):
    config = GenerationConfig(**{"max_length": 8, **options}, use_cache=use_cache)
    captions = generate(model, embedded, None, config, vocabulary)
    lengths = set()
    for (caption,), clip in zip(captions, embedded, strict=True):
        words, log_probabilities = greedy(model, clip, config)
        assert caption.ids == words
        assert caption.log_probability == pytest.approx(sum(log_probabilities), abs=1e-4)
        mean = sum(log_probabilities) / len(log_probabilities)
        assert caption.confidence == pytest.approx(math.exp(mean), abs=1e-4)
        assert caption.score == pytest.approx(mean, abs=1e-4)
        lengths.add(len(words))
    if not options:
        assert len(lengths) > 2  # so that some rows end before others
    if "max_length" in options:
        assert lengths == {6}


SEARCHES = [
    {"num_beams": 4, "num_return": 4},
    {"num_beams": 3, "num_return": 2, "length_penalty": 2.0, "repetition_penalty": 1.5},
    {"num_beams": 3, "min_length": 3, "length_penalty": 0.0},
    {"num_beams": 2, "length_penalty": -1.0, "max_length": 5},
]


@pytest.mark.parametrize("options", [*GREEDY, *SEARCHES])
def test_the_same_with_and_without_memory_alone_and_in_a_batch(model, vocabulary, embedded, options):
    """Videos of different lengths among them."""
    cached, uncached = (GenerationConfig(**{"max_length": 8, **options}, use_cache=use) for use in (True, False))
    video_valid = torch.arange(VIDEO) < torch.tensor([6, 6, 3, 5, 1, 2, 6, 4])[:, None]
    batched = generate(model, embedded, video_valid, cached, vocabulary)
    again = generate(model, embedded, video_valid, uncached, vocabulary)
    alone = [
        generate(model, embedded[clip, None], video_valid[clip, None], cached, vocabulary)[0] for clip in range(8)
    ]
    for one, other, third in zip(batched, again, alone, strict=True):
        assert [caption.ids for caption in one] == [caption.ids for caption in other]
        assert [caption.ids for caption in one] == [caption.ids for caption in third]
        for caption, same in zip([*one, *one], [*other, *third], strict=True):
            assert caption.log_probability == pytest.approx(same.log_probability, abs=1e-4)
    assert batched != generate(model, embedded, None, cached, vocabulary)


def test_padding_a_video_changes_nothing(build_captioner, vocabulary, embedded):
    model, config = build_captioner(), GenerationConfig(max_length=8, num_beams=3, num_return=3)
    noise = torch.cat([embedded, 9 * torch.ones(8, 2, 16)], 1)
    video_valid = (torch.arange(VIDEO + 2) < VIDEO).expand(8, -1)
    padded = generate(model, noise, video_valid, config, vocabulary)
    plain = generate(model, embedded, None, config, vocabulary)
    assert [[caption.ids for caption in clip] for clip in padded] == [[c.ids for c in clip] for clip in plain]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"length_penalty": 1.0},
        {"length_penalty": 0.0},
        {"length_penalty": 1.5, "min_length": 1, "repetition_penalty": 1.3},
        {"length_penalty": -0.5, "min_length": 2},
    ],
)
def test_with_enough_beams_the_search_is_exhaustive(model, vocabulary, embedded, options, use_cache, monkeypatch):
    """Every caption of three words is scored, one by one; the best are found, in order."""
    words = (5, 6, 7)
    monkeypatch.setattr(f"{__name__}.WORDS", words)
    vocabulary.special_ids = {index for index in range(19) if index not in words}
    config = GenerationConfig(max_length=3, num_beams=60, num_return=12, use_cache=use_cache, **options)
    (found,) = generate(model, embedded[:1], None, config, vocabulary)
    captions = []
    for length in range(config.min_length, 4):
        for caption in itertools.product(words, repeat=length):
            pieces = [*caption, SEP][:3]
            total = sum(
                next_log_probabilities(model, pieces[:index], embedded[0], config)[piece]
                for index, piece in enumerate(pieces)
            )
            captions.append((total / len(pieces) ** config.length_penalty, [*caption], total))
    captions.sort(reverse=True)
    assert len(captions) == sum(3**length for length in range(config.min_length, 4))
    assert [caption.ids for caption in found] == [ids for _, ids, _ in captions[:12]]
    for caption, (score, _, total) in zip(found, captions[:12], strict=True):
        assert caption.score == pytest.approx(score, abs=1e-4)
        assert caption.log_probability == pytest.approx(total, abs=1e-4)


class Peer(PreTrainedModel, GenerationMixin):
    """Our model's whole forward pass of one clip, as a language model that Hugging Face searches with."""

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, model: AlbertForImageCaptioning, clip: Tensor):
        super().__init__(PretrainedConfig(vocab_size=19, is_encoder_decoder=False, num_hidden_layers=1))
        self.peer, self.clip = model, clip

    def forward(self, input_ids: Tensor, **ignored) -> CausalLMOutput:
        ids = torch.cat([input_ids, torch.full_like(input_ids[:, :1], MASK)], 1)[:, None]
        clips = self.clip.expand(len(ids), -1, -1)
        scores = self.peer(ids, torch.ones_like(ids, dtype=torch.bool), clips)
        return CausalLMOutput(logits=scores[:, 0, -1:])

    def prepare_inputs_for_generation(self, input_ids: Tensor, **ignored) -> dict:
        return {"input_ids": input_ids}


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 4])
def test_beam_search_is_hugging_faces(model, vocabulary, embedded, num_beams, length_penalty):
    # Improbable in the first place, because Hugging Face's search does not exclude them.
    model.predictions.bias.data[[0, 1, CLS, MASK]] = -1e4
    config = GenerationConfig(max_length=7, num_beams=num_beams, num_return=num_beams, length_penalty=length_penalty)
    captions = generate(model, embedded, None, config, vocabulary)
    for clip, found in zip(embedded, captions, strict=True):
        theirs = Peer(model, clip).generate(
            torch.tensor([[CLS]]),
            num_beams=num_beams,
            num_return_sequences=num_beams,
            length_penalty=length_penalty,
            max_length=8,
            do_sample=False,
            early_stopping=False,
            eos_token_id=SEP,
            pad_token_id=0,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        expected = [[word for word in row[1:].tolist() if word not in (0, SEP)] for row in theirs.sequences]
        assert [caption.ids for caption in found] == expected
        scores = torch.tensor([caption.score for caption in found])
        torch.testing.assert_close(scores, theirs.sequences_scores, atol=1e-4, rtol=1e-4)


def test_the_best_are_distinct_and_in_order(model, vocabulary, embedded):
    captions = generate(model, embedded, None, GenerationConfig(max_length=8, num_beams=5, num_return=4), vocabulary)
    for of_clip in captions:
        assert len({tuple(caption.ids) for caption in of_clip}) == len(of_clip) == 4
        scores = [caption.score for caption in of_clip]
        assert scores == sorted(scores, reverse=True)


def test_more_beams_than_captions_give_what_there_is(model, vocabulary, embedded):
    vocabulary.special_ids = set(range(19)) - {5, 6}
    (captions,) = generate(
        model, embedded[:1], None, GenerationConfig(max_length=1, num_beams=8, num_return=8), vocabulary
    )
    assert sorted(caption.ids for caption in captions) == [[], [5], [6]]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_lengths_are_kept(model, vocabulary, embedded, num_beams):
    for least, most in ((0, 3), (5, 7), (4, 4)):
        config = GenerationConfig(max_length=most, min_length=least, num_beams=num_beams, num_return=num_beams)
        for of_clip in generate(model, embedded, None, config, vocabulary):
            assert all(least <= len(caption.ids) <= most for caption in of_clip)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_what_stands_for_no_word_is_never_said(model, vocabulary, embedded, num_beams):
    special = [0, 1, CLS, MASK]
    model.predictions.bias.data[special] = 50.0
    model.predictions.bias.data[15:] = 50.0
    vocabulary.vocab_size = 15  # a tokenizer that knows fewer words than the model has outputs
    captions = generate(
        model, embedded, None, GenerationConfig(max_length=8, min_length=2, num_beams=num_beams), vocabulary
    )
    said = {word for (caption,) in captions for word in caption.ids}
    assert said
    assert not said & {*special, SEP, 15, 16, 17, 18}
    assert all(0 < caption.confidence <= 1 for (caption,) in captions)


def count_steps(model: AlbertForImageCaptioning) -> list[int]:
    """A list that grows by the number of clips in the batch at every step."""
    steps = []
    model.predictions.register_forward_hook(lambda module, arguments, output: steps.append(len(output)))
    return steps


def test_clips_that_are_done_leave_the_batch_and_all_done_is_the_end(model, vocabulary, embedded):
    config = GenerationConfig(max_length=8)
    lengths = sorted(len(greedy(model, clip, config)[1]) for clip in embedded)
    assert lengths[0] < lengths[4]
    steps = count_steps(model)
    generate(model, embedded, None, config, vocabulary)
    assert len(steps) == lengths[-1]
    for step, rows in enumerate(steps, 1):
        going = sum(length >= step for length in lengths)
        assert going <= rows < 2 * going or going == rows == 8


def test_nothing_to_say_takes_one_step(model, vocabulary, embedded):
    model.predictions.bias.data[SEP] = 100.0
    steps = count_steps(model)
    captions = generate(model, embedded, None, GenerationConfig(max_length=8), vocabulary)
    assert steps == [8]
    assert [(caption.ids, round(caption.confidence, 3)) for (caption,) in captions] == [([], 1.0)] * 8


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_is_deterministic_and_leaves_no_gradient(model, vocabulary, embedded, num_beams):
    embedded.requires_grad_()
    config = GenerationConfig(max_length=8, num_beams=num_beams)
    scores = []
    model.predictions.register_forward_hook(lambda module, arguments, output: scores.append(output))
    once, again = (generate(model, embedded, None, config, vocabulary) for _ in range(2))
    assert once == again
    assert not any(output.requires_grad for output in scores)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_bfloat16_says_words_too(model, vocabulary, embedded, num_beams):
    config = GenerationConfig(max_length=8, num_beams=num_beams)
    with torch.autocast("cpu", torch.bfloat16):
        captions = generate(model, embedded, None, config, vocabulary)
    expected = generate(model, embedded, None, config, vocabulary)
    for (caption,), (exact,) in zip(captions, expected, strict=True):
        assert set(caption.ids) <= set(WORDS)
        if caption.ids == exact.ids:
            assert caption.log_probability == pytest.approx(exact.log_probability, abs=0.5)
    assert sum(caption.ids == exact.ids for (caption,), (exact,) in zip(captions, expected, strict=True)) >= 4


def test_what_cannot_be_is_said(model, vocabulary, embedded):
    with pytest.raises(ValueError, match=r"num_return: expected from 1 to num_beams \(2\), got 3"):
        GenerationConfig(num_beams=2, num_return=3)
    with pytest.raises(UserError, match=r"max_length: .*23 words, got 24"):
        generate(model, embedded, None, GenerationConfig(max_length=24), vocabulary)
    generate(model, embedded[:1], None, GenerationConfig(max_length=23, min_length=23), vocabulary)
    with pytest.raises(UserError, match="NaN"):
        generate(model, embedded * float("nan"), None, GenerationConfig(), vocabulary)
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        generate(model.train(), embedded, None, GenerationConfig(), vocabulary)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_length", 0),
        ("min_length", 21),
        ("num_beams", 0),
        ("num_return", 2),
        ("length_penalty", float("nan")),
        ("repetition_penalty", 0.0),
    ],
)
def test_impossible_settings_are_named(field, value):
    assert not validate(GenerationConfig, {})[1]
    assert [key for key, _ in validate(GenerationConfig, {field: value})[1]] == [field]
