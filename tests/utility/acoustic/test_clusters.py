"""Masked cluster prediction: clusters, entropy and loss against brute force, scipy and closed forms."""

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from mynah.utility.acoustic.clusters import entropy, kmeans
from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.figures import colors_of, draw_spectrograms, picture_data
from mynah.utility.acoustic.masking import MaskingConfig, MaskPlan, batch_mask_plans, draw_mask_plan
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.configuration.load import from_plain
from mynah.utility.configuration.problems import validate
from mynah.utility.errors import UserError
from mynah.utility.nn.padding import pad_signals

TINY = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
MEL = {"spectrogram": {"n_fft": 512, "n_mels": 40}, "input": {"cmvn": "corpus"}}


def voice(samples: int, seed: int) -> Tensor:
    """Noise whose loudness and color change: (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, generator=generator)
    time = torch.arange(samples) / 16000
    return 0.1 * (noise + 0.5 * noise.roll(1)) * (1.2 + torch.sin((5 + seed) * time))


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    return [voice(samples, seed) for seed, samples in enumerate([9000, 4321, 16000, 6000])]


def tiny_model(**options) -> AcousticModel:
    objective = {"name": "clusters", "clusters": {"num_clusters": 7, **options}}
    model = {**TINY, "frames_per_position": 2, "mask_token": False, "initializer_range": 0.2}
    torch.manual_seed(0)
    plain = {"model": model, "features": MEL, "objective": objective}
    return AcousticModel(from_plain(AcousticConfig, plain, "test")).eval()


@pytest.fixture(scope="module")
def fitted(signals) -> AcousticModel:
    model = tiny_model()
    model.fit(lambda: iter(signals), trunk=True, objective=True)
    return model


def vectors_alone(model: AcousticModel, signals: list[Tensor]) -> list[np.ndarray]:
    """The positions of each utterance by itself, as they are clustered: (N, 80) each."""
    found = []
    for signal in signals:
        stacked = model.features.stacked(model.features(*pad_signals([signal])), model.config.features.input)
        found.append(stacked[0].flatten(1).double().numpy())
    return found


def draw_plan(model: AcousticModel, signals: list[Tensor]) -> MaskPlan:
    config = MaskingConfig(
        mask_proportion=0.5, mask_consecutive_min=5, mask_consecutive_max=5, mask_allow_overlap=True
    )
    plans = [
        draw_mask_plan(model.positions.count(len(signal)), 40, config, np.random.default_rng(seed))
        for seed, signal in enumerate(signals)
    ]
    return batch_mask_plans(plans)


def test_each_position_belongs_to_the_nearest_centroid(fitted, signals):
    centroids = fitted.objective.centroids.double().numpy()
    heard = fitted.features(*pad_signals(signals))
    plan = draw_plan(fitted, signals)
    targets = fitted.objective.targets(fitted.features, heard, plan.chosen)
    expected = np.concatenate(
        [
            cdist(vectors, centroids).argmin(1)[plan.target[row, : len(vectors)].numpy()]
            for row, vectors in enumerate(vectors_alone(fitted, signals))
        ]
    )
    assert targets.dtype == torch.int64
    assert targets.tolist() == expected.tolist()
    assert len(set(expected)) > 3


def test_the_perplexity_is_that_of_the_clusters_sizes(fitted, signals):
    vectors = np.concatenate(vectors_alone(fitted, signals))
    sizes = np.bincount(cdist(vectors, fitted.objective.centroids.double().numpy()).argmin(1), minlength=7)
    assert fitted.objective.perplexity.item() == pytest.approx(np.exp(scipy.stats.entropy(sizes)), rel=1e-4)
    assert 1 < fitted.objective.perplexity < 7


def test_centroids_are_the_means_of_what_lies_apart():
    generator = np.random.default_rng(0)
    middles = generator.normal(0, 50, (5, 12))
    members = [middle + generator.normal(0, 0.1, (200, 12)) for middle in middles]
    found = kmeans(generator.permutation(np.concatenate(members)).astype("float32"), 5)
    means = np.stack([group.mean(0) for group in members])
    order = cdist(means, found).argmin(1)
    assert sorted(order) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found[order], means, atol=0.02)


def test_entropy_in_closed_form():
    assert entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(np.log(8))
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0
    assert entropy(torch.tensor([0.5, 0.25, 0.25])).item() == pytest.approx(1.5 * np.log(2))


def test_the_loss_is_the_mean_cross_entropy_of_masked_positions(fitted, signals):
    plan = draw_plan(fitted, signals)
    head, total, count = fitted.objective.output, 0.0, 0
    centroids = fitted.objective.centroids.double().numpy()
    for row, vectors in enumerate(vectors_alone(fitted, signals)):
        masked = plan.target[row, : len(vectors)]
        alone = MaskPlan(masked[None], plan.source[row : row + 1, : len(vectors)], plan.band[row : row + 1])
        content = torch.from_numpy(vectors).float().view(1, len(vectors), 2, 40)
        states, _, _ = fitted.encode(content, torch.tensor([len(vectors)]), alone)
        clusters = cdist(vectors, centroids).argmin(1)
        for position in masked.nonzero()[:, 0].tolist():
            scores = (head.weight @ states[-1][0, position] + head.bias).double()
            total -= torch.log_softmax(scores, 0)[clusters[position]].item()
            count += 1
    assert fitted.loss(*pad_signals(signals), plan).item() == pytest.approx(total / count, rel=1e-4)


def test_the_loss_by_torchs_own_and_nothing_masked_is_no_loss(fitted):
    logits, targets = torch.randn(9, 7), torch.tensor([0, 6, 3, 3, 1, 2, 5, 0, 4])
    own = fitted.objective.loss(logits, targets, torch.tensor(9))
    torch.testing.assert_close(own, torch.nn.functional.cross_entropy(logits, targets))
    assert fitted.objective.loss(logits[:0], targets[:0], torch.tensor(0)).item() == 0


def test_what_is_learned_is_the_same_for_any_number_of_threads(signals):
    states = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = tiny_model()
            model.fit(lambda: iter(signals), trunk=True, objective=True)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_sample_is_bounded_and_reads_no_more_than_it_needs(signals):
    model, read = tiny_model(fit_positions=60), []

    def waveforms():
        for signal in signals:
            read.append(len(signal))
            yield signal

    model.objective.fit(model.features, waveforms())
    assert read == [9000, 4321, 16000]  # 28, 14 and 18 of the 50 positions of the third


def test_more_clusters_than_positions_are_refused(signals):
    model = tiny_model(num_clusters=500)
    with pytest.raises(UserError, match=r"num_clusters=500: the training data has 111 positions; give fewer"):
        model.fit(lambda: iter(signals), trunk=True, objective=True)


def test_digital_silence_can_be_clustered():
    model = tiny_model()
    model.fit(lambda: iter([torch.zeros(16000)]), trunk=True, objective=True)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.objective.perplexity.item() == pytest.approx(1)


def test_metrics_are_those_of_a_count_by_hand(fitted):
    logits = torch.eye(7)[[0, 0, 1, 2]]
    targets = torch.tensor([1, 1, 1, 5])
    metrics = fitted.objective.metrics(logits, targets)
    sizes = fitted.objective.metric_sizes()
    assert list(metrics) == list(sizes) == list(fitted.objective.METRICS)
    means = {name: values.double().view(4, sizes[name]).mean(0) for name, values in metrics.items()}
    summary = fitted.objective.summary(0.5, means)
    assert summary["accuracy"] == 0.25  # the third
    assert (summary["used_clusters"], summary["predicted_clusters"]) == (2, 3)
    assert summary["loss_share"] == pytest.approx(0.5 / (np.log(4) - 0.75 * np.log(3)))


def test_targets_and_predictions_are_drawn_as_strips(fitted, signals):
    plan = draw_plan(fitted, signals[:1])
    panels, _ = picture_data(fitted, *pad_signals(signals[:1]), plan)
    targets, predictions = panels["target clusters"], panels["predicted clusters"]
    assert targets.shape == predictions.shape == (2 * plan.target.shape[1],)
    vectors = vectors_alone(fitted, signals[:1])[0]
    expected = cdist(vectors, fitted.objective.centroids.double().numpy()).argmin(1)
    assert targets[::2].tolist() == targets[1::2].tolist() == expected.tolist()
    figure = draw_spectrograms(panels)
    heights = [axis.get_window_extent().height for axis in figure.axes[:4]]
    assert heights[0] > 2 * heights[2] > 0
    colors = colors_of(torch.tensor([3, 4, 3, 90]))
    assert (colors[0] == colors[2]).all()
    assert abs(colors[0] - colors[1]).max() > 0.1


def test_a_model_for_features_alone_has_no_teacher(signals):
    teacher = {"model": {**TINY, "frames_per_position": 2}, "features": MEL, "layer": 1}
    model = tiny_model(teacher=teacher)
    names = [name for name in model.state_dict() if name.startswith("objective.teacher.")]
    assert model.drop_training_parts() == ("objective.teacher.",)
    assert names and not any(name in model.state_dict() for name in names)
    assert torch.isfinite(model(*pad_signals(signals))[0][-1]).all()


def test_a_teacher_never_learns_and_is_never_in_training(signals):
    teacher = {"model": {**TINY, "frames_per_position": 2, "hidden_dropout_prob": 0.5}, "features": MEL, "layer": 2}
    model = tiny_model(teacher=teacher).train()
    assert not model.objective.teacher.trunk.training
    assert not any(weight.requires_grad for weight in model.objective.teacher.parameters())
    model.fit(lambda: iter(signals), trunk=True, objective=True)
    heard = model.features(*pad_signals(signals))
    everywhere = (torch.arange(50) < model.positions.count(heard.lengths)[:, None]).flatten().nonzero()[:, 0]
    states = [model.objective.vectors(model.features, heard, everywhere) for _ in range(2)]
    assert torch.equal(*states)
    alone = [model.objective.teacher(*pad_signals([signal]))[0] for signal in signals]
    torch.testing.assert_close(states[0], torch.cat(alone), atol=1e-5, rtol=0)
    expected = cdist(states[0].double(), model.objective.centroids.double()).argmin(1)
    assert model.objective.targets(model.features, heard, everywhere).tolist() == expected.tolist()


def test_a_teacher_whose_positions_lie_elsewhere_is_refused():
    with pytest.raises(UserError, match="a position every 480 samples, this one every 320"):
        tiny_model(teacher={"model": {**TINY, "frames_per_position": 3}, "features": MEL, "layer": 1})


@pytest.mark.parametrize(
    ("plain", "key"),
    [
        ({"objective": {"name": "clusters", "clusters": {"num_clusters": 1}}}, "objective.clusters.num_clusters"),
        (
            {"objective": {"name": "clusters", "clusters": {"feature": {"feature": "fbank"}}}},
            "objective.clusters.feature.feature",
        ),
        ({"objective": {"clusters": {"teacher": {"layer": 7}}}}, "objective.clusters.teacher.layer"),
        ({"objective": {"clusters": {"teacher": {}}}}, "objective.clusters.teacher.layer"),
        *(
            ({"features": {"input": {"cmvn": value}}}, "features.input.cmvn")
            for value in ("speaker", 1, 1.5, None, [], {"a": 1})
        ),
        ({"features": {"statistics_hours": 0}}, "features.statistics_hours"),
    ],
)
def test_impossible_clusters_are_named(plain, key):
    assert [found for found, _ in validate(AcousticConfig, plain)[1]] == [key]


@pytest.mark.parametrize("given", ["exp", "exp:", ":3", "exp:-1", "exp:two", "exp:" + "9" * 5000])
def test_a_teacher_is_a_checkpoint_and_a_layer(given):
    plain = {"objective": {"name": "clusters"}, "init": {"clusters": given}, "trainer": {"max_steps": 1}}
    ((key, text),) = validate(AcousticPretrainConfig, plain)[1]
    assert key == "init.clusters" and "expected CKPT:LAYER" in text


def test_a_teacher_is_for_clusters():
    plain = {"init": {"clusters": "exp:3"}, "trainer": {"max_steps": 1}}
    ((key, text),) = validate(AcousticPretrainConfig, plain)[1]
    assert key == "init.clusters" and "is for objective.name=clusters, got reconstruction" in text
