"""Speaker verification: speakers and trials, the x-vector network, its loss, scores, report and inference."""

import csv
import json
import logging
import math
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from mynah import ROOT
from mynah.downstream.build import TaskOptions
from mynah.downstream.inference import predict
from mynah.downstream.interfaces import UpstreamInfo
from mynah.downstream.sv_voxceleb1.dataset import hold_out, speaker_of
from mynah.downstream.sv_voxceleb1.expert import DownstreamExpert
from mynah.downstream.sv_voxceleb1.trials import make_trials, read_trials, utterances_of
from mynah.downstream.sv_voxceleb1.xvector import (
    CONTEXTS,
    NEEDED_POSITIONS,
    SpeakerHead,
    XVector,
    XVectorConfig,
    additive_margin_loss,
)
from mynah.downstream.training import evaluate, train
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "sv_voxceleb1" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
SIZES = {"projector_size": 12, "frame_size": 10, "pooled_size": 14, "embedding_size": 6}
SMALL = [*(f"model.{key}={value}" for key, value in SIZES.items()), "datarc.min_timestep=4000"]


def write_wav(path: Path, seconds: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path.parts[-3:]).encode())).uniform(-0.5, 0.5, int(16000 * seconds))
    soundfile.write(path, noise, 16000)


def write_speakers(root: Path, speakers, count: int = 3) -> Path:
    for speaker in speakers:
        for number in range(count):
            write_wav(root / speaker / f"video{number % 2}" / f"{number:05d}.wav")
    return root


@pytest.fixture
def voxceleb1(tmp_path) -> Path:
    """The official layout: six speakers in dev, two in test, and a list of trials of these two."""
    root = tmp_path / "VoxCeleb1"
    write_speakers(root / "dev/wav", [f"id1000{number}" for number in range(6)])
    write_speakers(root / "test/wav", ["id10270", "id10271"])
    (root / "veri_test2.txt").write_text(
        "1 id10270/video0/00000.wav id10270/video1/00001.wav\n\n"
        "0 id10270/video0/00000.wav id10271/video0/00000.wav\n"
        "1 id10271/video0/00002.wav id10271/video1/00001.wav\n"
        "0 id10271/video1/00001.wav id10270/video0/00000.wav\n"
    )
    return root


def build(data: Path, *overrides: str, **arguments) -> DownstreamExpert:
    values = [f"datarc.file_path={data}", *SMALL, *overrides]
    torch.manual_seed(0)
    return DownstreamExpert(
        UPSTREAM, load_config(DownstreamExpert.Config, files=[CONFIG], overrides=values), **arguments
    )


# -- speakers and trials -------------------------------------------------------------------------------------


def test_the_official_list_is_tested_and_other_speakers_are_held_out_for_dev(voxceleb1):
    expert = build(voxceleb1)
    dataset = expert.get_dataset("test")
    assert [Path(dataset[index]["name"]).relative_to(voxceleb1 / "test/wav").as_posix() for index in range(4)] == [
        "id10270/video0/00000.wav",
        "id10270/video1/00001.wav",
        "id10271/video0/00000.wav",
        "id10271/video0/00002.wav",
    ]
    assert [trial.target for trial in expert.verification.trials["test"]] == [True, False, True, False]
    heard = {split: {Path(name).parts[2] for name in expert.get_dataset(split).names} for split in ("train", "dev")}
    assert len(heard["train"]) == 4 and len(heard["dev"]) == 2
    assert heard["train"] | heard["dev"] == {f"id1000{number}" for number in range(6)}
    assert expert.speakers == sorted(heard["train"])


@pytest.mark.parametrize("layout", ["speakers", "wav", "dev and test"])
def test_without_a_list_no_speaker_is_in_two_splits(tmp_path, layout):
    names = [f"s{number}" for number in range(12)]
    root = tmp_path / "data"
    if layout == "dev and test":
        write_speakers(root / "dev/wav", names[:9])
        write_speakers(root / "test/wav", names[9:])
    else:
        write_speakers(root / "wav" if layout == "wav" else root, names)
    corpus = build(root, "datarc.dev_fraction=0.3").verification
    speakers = {split: {speaker_of(name) for name in utterances_of(corpus.trials[split])} for split in corpus.trials}
    speakers["train"] = {speaker for _, speaker in corpus.train}
    assert sum(map(len, speakers.values())) == 12 == len(set.union(*speakers.values()))
    if layout == "dev and test":
        assert speakers["test"] == set(names[9:])
    for utterance, speaker in corpus.train:
        assert speaker_of(utterance.name) == speaker


def test_who_is_held_out_depends_on_neither_the_seed_nor_the_others(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(12)])
    assert build(root).verification.trials == build(root, "seed=7").verification.trials
    names = [f"s{number}" for number in range(30)]
    assert len(hold_out(names, 0.2) - hold_out([*names, "new"], 0.2)) <= 1
    with pytest.raises(UserError, match="3 speakers, of whom 2 are to be held out"):
        hold_out(names[:3], 0.2)


def test_made_trials_are_balanced_distinct_and_across_recordings():
    names = {f"s{s}": [f"s{s}/video{v}/{u}.wav" for v in range(3) for u in range(4)] for s in range(5)}
    names["one"] = [f"one/video/{u}.wav" for u in range(4)]
    trials = make_trials(names, 200, 8)
    assert Counter(trial.target for trial in trials) == {True: 100, False: 100}
    assert len({frozenset((trial.first, trial.second)) for trial in trials}) == 200
    for trial in trials:
        first, second = trial.first.split("/"), trial.second.split("/")
        assert trial.target == (first[0] == second[0])
        assert not trial.target or first[0] == "one" or first[1] != second[1]
    assert max(Counter(speaker_of(name) for name in utterances_of(trials)).values()) <= 8
    assert make_trials(dict(reversed(names.items())), 200, 8) == trials


def test_where_pairs_are_few_both_kinds_have_as_few():
    names = {"a": ["a/v/1", "a/w/1"], "b": ["b/v/1", "b/v/2"], "c": ["c/v/1"]}
    assert Counter(trial.target for trial in make_trials(names, 100, 20)) == {True: 2, False: 2}
    assert make_trials({"a": ["a/v/1"], "b": ["b/v/1"]}, 100, 20) == []


def test_a_list_that_is_made_is_written_once_and_can_be_read_again(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)])
    expert = build(root, folder=tmp_path / "run")
    for split in ("dev", "test"):
        assert read_trials(tmp_path / "run" / f"{split}_trials.txt") == expert.verification.trials[split]
    again = build(root, f"datarc.trial_list={tmp_path / 'run' / 'test_trials.txt'}")
    assert again.verification.trials == expert.verification.trials and again.speakers == expert.speakers
    build(root, "datarc.test_fraction=0.5", folder=tmp_path / "run")
    assert read_trials(tmp_path / "run" / "test_trials.txt") == expert.verification.trials["test"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 a/1 a/2\n0 a/1 b/1 c/1\n", r"line 2: expected '1' \(one speaker\) or '0' \(two\) and two files"),
        ("1 a/1 a/2\n\n2 a/1 b/1\n", "line 3: expected '1'"),
        ("1 a/1 a/2\n0 a/1\n", "line 2: expected '1'.*got '0 a/1'"),
        ("1 a/1 plain.wav\n", "line 1"),
        ("", "0 trials of one speaker and 0 of two"),
        ("1 a/1 a/2\n", "1 trials of one speaker and 0 of two"),
    ],
)
def test_malformed_lists_are_refused_with_their_line(tmp_path, text, said):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        read_trials(tmp_path / "list.txt")


def test_lists_that_cannot_be_read_are_named(tmp_path, voxceleb1):
    (tmp_path / "bytes.txt").write_bytes(b"1 \xff\xfe a/b\n")
    with pytest.raises(UserError, match="cannot be read as a list of trials"):
        read_trials(tmp_path / "bytes.txt")
    with pytest.raises(UserError, match=r"there is no file .*gone\.txt"):
        build(voxceleb1, f"datarc.trial_list={tmp_path / 'gone.txt'}")


def test_trials_of_missing_files_are_counted_or_refused(voxceleb1, caplog):
    (voxceleb1 / "test/wav/id10271/video0/00000.wav").unlink()
    with pytest.raises(
        UserError, match=r"1 of the 4 trials .* id10271/video0/00000.wav; datarc.max_bad_fraction=0.05"
    ):
        build(voxceleb1)
    with caplog.at_level(logging.WARNING, "mynah"):
        expert = build(voxceleb1, "datarc.max_bad_fraction=0.3")
    assert "1 of the 4 trials" in caplog.text
    assert len(expert.verification.trials["test"]) == 3 and len(expert.get_dataset("test")) == 4


def test_short_utterances_are_left_out_of_what_is_chosen_but_not_of_an_official_list(voxceleb1):
    write_wav(voxceleb1 / "test/wav/id10270/video0/00000.wav", 0.15)
    write_wav(voxceleb1 / "dev/wav/id10000/video9/00000.wav", 0.15)
    corpus = build(voxceleb1).verification
    assert len(corpus.trials["test"]) == 4
    chosen = [each.name for each, _ in corpus.train] + utterances_of(corpus.trials["dev"])
    assert "id10000/video9/00000.wav" not in chosen and "id10000/video0/00000.wav" in chosen


def test_signals_are_quieter_cropped_for_training_and_without_silence_at_their_ends(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)])
    for path in root.rglob("*.wav"):
        noise, _ = soundfile.read(path)
        soundfile.write(path, np.concatenate([np.zeros(8000), noise, np.zeros(8000)]), 16000, subtype="FLOAT")
    plain = ["datarc.trim_silence=false", "datarc.gain_db=0"]
    whole, quiet = (build(root, *values).get_dataset("dev")[0]["signal"] for values in (plain, plain[:1]))
    assert torch.allclose(quiet, whole * 10 ** (-3 / 20)) and len(whole) == 20800
    trimmed = build(root).get_dataset("dev")[0]["signal"]
    assert 4800 <= len(trimmed) < 8000
    assert len(build(root, *plain, "datarc.max_timestep=4000").get_dataset("train")[0]["signal"]) == 4000


def test_too_few_speakers_are_refused(tmp_path):
    with pytest.raises(UserError, match="3 speakers with utterances of"):
        build(write_speakers(tmp_path / "data", ["a", "b", "c"]))


# -- the network ---------------------------------------------------------------------------------------------


def features_of(lengths: list[int], size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(lengths), max(lengths), size, generator=generator), torch.tensor(lengths)


def test_embeddings_are_those_of_the_published_layers_utterance_by_utterance():
    """Against products of plain matrices on each unpadded utterance, and numpy's mean and deviation."""
    torch.manual_seed(1)
    network = XVector(8, XVectorConfig(**SIZES)).double()
    features, lengths = features_of([40, 15, 23])
    found = network(features.double(), lengths)
    for row, length in enumerate(lengths.tolist()):
        x = features[row, :length].double() @ network.projector.weight.T + network.projector.bias
        for (size, dilation), layer in zip([(5, 1), (3, 2), (3, 3), (1, 1), (1, 1)], network.layers, strict=True):
            outputs = []
            for start in range(len(x) - (size - 1) * dilation):
                seen = [layer.weight[:, :, step] @ x[start + step * dilation] for step in range(size)]
                outputs.append((sum(seen) + layer.bias).clamp(min=0))
            x = torch.stack(outputs)
        assert len(x) == length - 14
        pooled = x.detach().numpy()
        statistics = np.concatenate([pooled.mean(0), np.sqrt(np.maximum(pooled.var(0), 1e-8))])
        expected = torch.from_numpy(statistics) @ network.embedding.weight.T + network.embedding.bias
        assert torch.allclose(found[row], expected, atol=1e-9)
    assert [layer.out_channels for layer in network.layers] == [10, 10, 10, 10, 14]


def test_the_defaults_are_superbs():
    expert_config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=["datarc.file_path=x"])
    network = XVector(768, expert_config.model)
    widths = [(layer.in_channels, layer.out_channels) for layer in network.layers]
    assert CONTEXTS == ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1)) and NEEDED_POSITIONS == 15
    assert widths == [(512, 512)] * 4 + [(512, 1500)]
    assert (network.embedding.in_features, network.embedding.out_features) == (3000, 512)
    assert (expert_config.model.scale, expert_config.model.margin) == (30, 0.4)
    assert (expert_config.datarc.gain_db, expert_config.datarc.min_timestep) == (-3, 32000)


@pytest.mark.parametrize("length", [1, 3, 14, 15, 16, 40])
def test_padding_never_changes_an_embedding_however_short_the_utterance(length):
    network = XVector(8, XVectorConfig(**SIZES)).eval()
    features, _ = features_of([length])
    alone = network(features, torch.tensor([length]))
    padded = torch.full((2, 60, 8), float("nan"))
    padded[0, :length], padded[1] = features[0], 0.3
    together = network(padded, torch.tensor([length, 60]))
    assert torch.isfinite(alone).all() and torch.allclose(together[:1], alone, atol=1e-6)


def test_a_short_utterance_is_one_whose_last_position_lasts():
    network = XVector(8, XVectorConfig(**SIZES))
    features, _ = features_of([6])
    longer = torch.cat([features, features[:, -1:].expand(-1, 9, -1)], 1)
    expected = network(longer, torch.tensor([15]))
    assert torch.allclose(network(features, torch.tensor([6])), expected, atol=1e-6)


def test_the_loss_is_the_papers():
    """Wang et al. 2018, eq. 6, term by term."""
    cosines = torch.tensor([[0.3, -0.2, 0.9], [0.1, 0.8, -0.5]])
    scale, margin, terms = 30.0, 0.4, []
    for row, own in zip(cosines.tolist(), (2, 0), strict=True):
        top = math.exp(scale * (row[own] - margin))
        others = sum(math.exp(scale * value) for index, value in enumerate(row) if index != own)
        terms.append(-math.log(top / (top + others)))
    found = additive_margin_loss(cosines, torch.tensor([2, 0]), scale, margin)
    assert found.item() == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_the_head_gives_cosines_with_the_speakers():
    torch.manual_seed(0)
    head, embeddings = SpeakerHead(6, 4), torch.randn(3, 6)
    hidden = nn.functional.relu(head.hidden(nn.functional.relu(embeddings)))
    expected = nn.CosineSimilarity(dim=-1)(hidden[:, None], head.speakers[None])
    assert torch.allclose(head(embeddings), expected, atol=1e-6)


# -- the task ------------------------------------------------------------------------------------------------


def voices(expert: DownstreamExpert, split: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, list, list[str]]:
    """The items of the split, with noise for features: four means are the speaker's, four the utterance's own."""
    dataset = expert.get_dataset(split)
    paths = [utterance.path for utterance in dataset.speech.utterances]
    noise = torch.Generator().manual_seed(seed)
    rows = []
    for path in paths:
        speaker = torch.Generator().manual_seed(int(Path(path).parts[-3][1:]))
        means = torch.cat([torch.randn(4, generator=speaker), 2 * torch.randn(4, generator=noise)])
        rows.append(means + 0.5 * torch.randn(20, 8, generator=noise))
    return torch.stack(rows), torch.full((len(rows),), 20), dataset.labels, paths


def scored(expert: DownstreamExpert, split: str = "dev") -> tuple[dict, dict]:
    records: dict[str, list] = {}
    with torch.no_grad():
        features, lengths, labels, paths = voices(expert, split)
        expert.eval()(split, features, lengths, labels, records, paths)
    return expert.log_records(split, records), records


def test_the_head_learns_to_verify_speakers_it_has_not_heard(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(50)], 4)
    sizes = ["model.frame_size=24", "model.pooled_size=24", "model.embedding_size=16", "model.margin=0.1"]
    expert = build(root, *sizes)
    before, _ = scored(expert, "test")
    optimizer = torch.optim.Adam(expert.parameters(), lr=5e-3)
    for step in range(60):
        features, lengths, labels, paths = voices(expert, "train", seed=step)
        optimizer.zero_grad()
        loss = expert.train()("train", features, lengths, labels, {}, paths)
        loss.backward()
        optimizer.step()
    after, _ = scored(expert, "test")
    assert before["eer"] > 0.35 and after["eer"] < 0.25


def test_scores_metrics_and_report_agree_with_each_other(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(10)], 4)
    expert = build(root)
    metrics, records = scored(expert, "dev")
    assert expert.threshold.item() == pytest.approx(metrics["threshold"])
    assert abs(metrics["misses"] - metrics["false_alarms"]) < 0.2
    vectors = {path: np.frombuffer(each, np.float32) for path, each in zip(*records.values(), strict=True)}
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in vectors.values())
    files = expert.write_report("dev", records, tmp_path)
    assert [path.name for path in files] == ["trials.csv", "scores.png"] and files[1].stat().st_size > 10000
    rows = list(csv.DictReader(files[0].open()))
    assert len(rows) == metrics["trials"] == len(expert.verification.trials["dev"])
    for row in rows:
        score = vectors[str(root / row["first"])] @ vectors[str(root / row["second"])]
        assert float(row["score"]) == pytest.approx(score, abs=1e-5)
        assert row["label"] == str(int(row["first"].split("/")[0] == row["second"].split("/")[0]))


def test_files_that_turn_out_unreadable_are_left_out_up_to_a_share(tmp_path, caplog):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(10)], 8)
    expert = build(root, "datarc.max_bad_fraction=0.3")
    _, records = scored(expert)
    one_less = {key: values[1:] for key, values in records.items()}
    lost = sum(
        records["path"][0] in (str(root / t.first), str(root / t.second)) for t in expert.verification.trials["dev"]
    )
    with caplog.at_level(logging.WARNING, "mynah"):
        metrics = expert.log_records("dev", one_less)
    assert lost and metrics["trials"] == len(expert.verification.trials["dev"]) - lost
    assert f"{lost} of the " in caplog.text
    with pytest.raises(UserError, match="dev trials have a file that could not be read"):
        expert.log_records("dev", {key: values[:2] for key, values in records.items()})


def test_a_head_that_diverged_is_reported_as_not_a_number(tmp_path):
    expert = build(write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)]))
    _, records = scored(expert)
    kept = expert.threshold.item()
    records["embedding"] = [np.full(6, np.nan, np.float32).tobytes() for _ in records["path"]]
    assert math.isnan(expert.log_records("dev", records)["eer"]) and expert.threshold.item() == kept
    assert [path.name for path in expert.write_report("dev", records, tmp_path)] == ["trials.csv"]


def test_a_rebuilt_expert_needs_no_data_and_compares_the_same(tmp_path):
    expert = build(write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)])).eval()
    scored(expert)
    rebuilt = build(tmp_path / "gone", state=json.loads(json.dumps(expert.state()))).eval()
    rebuilt.load_state_dict(expert.state_dict())
    features, lengths = features_of([20, 30])
    first, second = rebuilt.predict(features, lengths)
    assert expert.predict(features, lengths) == [first, second]
    assert len(first["closest"]) == 3 and first["closest"][0]["speaker"] in expert.speakers
    found = rebuilt.compare_predictions(second, first, Path("a.wav"))
    cosine = np.dot(first["embedding"], second["embedding"])
    assert found["similarity"] == pytest.approx(cosine) and found["threshold"] == expert.threshold.item()
    assert found["same_speaker"] == (cosine >= expert.threshold.item())


def test_trials_of_speakers_that_were_trained_with_are_told(tmp_path, caplog):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)])
    expert = build(root)
    own = expert.speakers[:2]
    lines = [
        f"1 {own[0]}/video0/00000.wav {own[0]}/video1/00001.wav",
        f"0 {own[0]}/video0/00000.wav {own[1]}/video1/00001.wav",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    other = build(root, f"datarc.trial_list={tmp_path / 'list.txt'}", state=expert.state())
    with caplog.at_level(logging.WARNING, "mynah"):
        other.get_dataset("test")
    assert "2 of the 2 speakers of the test trials were trained with" in caplog.text


def test_a_run_evaluates_and_compares_files_at_the_threshold_of_its_best_checkpoint(tmp_path):
    root = write_speakers(tmp_path / "data", [f"s{number}" for number in range(8)])
    values = [f"datarc.file_path={root}", *SMALL, "trainer.max_steps=4", "trainer.accumulate_grad_batches=1"]
    values += ["trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "dataloader.num_workers=0"]
    options = {"root": tmp_path, "name": "run", "upstream": "fbank", "downstream": "sv_voxceleb1"}
    metrics = train(TaskOptions(**options, overrides=values))
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["state_dict"]["expert.threshold"].item() == pytest.approx(metrics["dev"]["threshold"], abs=1e-6)
    again = evaluate(TaskOptions(root=tmp_path, resume=tmp_path / "run"))
    assert again["eer"] == metrics["test"]["eer"] and again["misses"] == metrics["test"]["misses"]
    trial, *_ = csv.DictReader((tmp_path / "run/test/trials.csv").open())
    files = [root / trial["first"], root / trial["first"], root / trial["second"]]
    results = list(predict(TaskOptions(resume=tmp_path / "run"), files))
    assert "similarity" not in results[0].result and "closest" in results[0].text
    assert results[1].result["similarity"] == pytest.approx(1, abs=1e-5) and results[1].result["same_speaker"]
    assert f"{results[2].result['similarity']:.3f} with {files[0]}" in results[2].text
    assert results[2].result["similarity"] == pytest.approx(float(trial["score"]), abs=1e-4)


def test_without_data_the_demo_corpus_is_used(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert len(expert.speakers) >= 6 and all(
        len(expert.get_dataset(split)) > 20 for split in ("train", "dev", "test")
    )


def test_a_similarity_just_below_the_threshold_is_seen_to_be_below():
    close = {
        "closest": [],
        "similarity": 0.99998,
        "threshold": 0.99999,
        "same_speaker": False,
        "compared_with": "a.wav",
    }
    text = DownstreamExpert.format_prediction(None, close)
    assert "0.9999800 with a.wav: two speakers (less than 0.9999900)" in text
    far = {**close, "similarity": 0.25}
    assert "0.250 with a.wav: two speakers (less than 1.000)" in DownstreamExpert.format_prediction(None, far)
