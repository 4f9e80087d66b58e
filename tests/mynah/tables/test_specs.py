"""Rows, columns and options as they are typed, with paths, URLs and ids that hold the marks themselves."""

import pytest

from mynah.tables.specs import (
    check_label,
    choose_labels,
    folder_name,
    parse_task,
    parse_upstream,
    parse_values,
    split_target,
    upstream_labels,
)


@pytest.mark.parametrize(
    ("text", "label", "upstream", "checkpoint", "config"),
    [
        ("fbank", "", "fbank", None, None),
        ("aalbert=result/pretrain/a", "", "aalbert", "result/pretrain/a", None),
        ("two words:aalbert=a", "two words", "aalbert", "a", None),
        ("untrained:aalbert@runs/a/model_config.yaml", "untrained", "aalbert", None, "runs/a/model_config.yaml"),
        ("aalbert@a=b/c.yaml", "", "aalbert", None, "a=b/c.yaml"),
        ("aalbert@a:b/c.yaml", "", "aalbert", None, "a:b/c.yaml"),
        ("aalbert=a@b.yaml", "", "aalbert", "a", "b.yaml"),
        ("aalbert=lr=3:x/last.ckpt", "", "aalbert", "lr=3:x/last.ckpt", None),
        ("aalbert=/data/me@home/last.ckpt", "", "aalbert", "/data/me@home/last.ckpt", None),
        ("aalbert=/data/me@home/last.ckpt@m.yml", "", "aalbert", "/data/me@home/last.ckpt", "m.yml"),
        ("hf_speech=facebook/hubert-base-ls960", "", "hf_speech", "facebook/hubert-base-ls960", None),
        (
            "x:aalbert=https://me@host:80/a=1/last.ckpt#sha256=00",
            "x",
            "aalbert",
            "https://me@host:80/a=1/last.ckpt#sha256=00",
            None,
        ),
        ("aalbert=https://host/a.ckpt@c.yaml", "", "aalbert", "https://host/a.ckpt", "c.yaml"),
    ],
)
def test_an_upstream_is_parsed_whatever_its_paths_hold(text, label, upstream, checkpoint, config):
    assert parse_upstream(text) == {"label": label, "upstream": upstream, "checkpoint": checkpoint, "config": config}


def test_a_configuration_that_exists_is_found_behind_any_at_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me@home").mkdir()
    (tmp_path / "me@home" / "c.yaml").write_text("model: {}")
    found = parse_upstream("aalbert=ckpt@me@home/c.yaml")
    assert (found["checkpoint"], found["config"]) == ("ckpt", "me@home/c.yaml")


@pytest.mark.parametrize(
    "text", ["", "=a", "aalbert=", "aalbert@", ":fbank", "a b", "x:", "x:y z=3", "aalbert=@c.yaml"]
)
def test_what_is_no_upstream_is_refused(text):
    with pytest.raises(ValueError, match=r"expected \[LABEL:\]UPSTREAM"):
        parse_upstream(text)


def test_a_task_has_a_label_and_a_configuration():
    assert parse_task("emodb:emotion@my@dir/c.yaml") == {
        "label": "emodb",
        "task": "emotion",
        "config": "my@dir/c.yaml",
    }
    assert parse_task("emotion") == {"label": "", "task": "emotion", "config": None}
    with pytest.raises(ValueError, match="such as speech_commands"):
        parse_task("emotion=3")


def test_an_option_is_of_one_task_only_where_a_colon_comes_before_its_value():
    assert split_target("emodb:datarc.fold=2") == ("emodb", "datarc.fold=2")
    assert split_target("datarc.file_path={a: /x}") == (None, "datarc.file_path={a: /x}")
    assert split_target("e:datarc.file_path=https://x:y=z") == ("e", "datarc.file_path=https://x:y=z")


def test_values_that_vary_are_listed():
    assert parse_values("datarc.fold=1,2,3") == ("datarc.fold", ["1", "2", "3"])
    assert parse_values("datarc.fold=[1, 2]") == ("datarc.fold", ["1", "2"])
    for wrong in ("datarc.fold=1", "datarc.fold", "=1,2", "datarc.fold=1,,2", "datarc.fold=1,1"):
        with pytest.raises(ValueError, match="two values or more"):
            parse_values(wrong)


def labels(*rows):
    return choose_labels([""] * len(rows), [lambda row=row: upstream_labels(*row) for row in rows])


def test_labels_made_by_itself_tell_rows_apart_and_keep_those_before():
    assert labels(("fbank", None, None), ("fbank", None, None)) == ["fbank", "fbank 2"]
    first = labels(("aalbert", "x/a/checkpoints/last.ckpt", None))
    both = labels(("aalbert", "x/a/checkpoints/last.ckpt", None), ("aalbert", "y/a/", None))
    assert both == [*first, "aalbert y/a"] == ["aalbert a", "aalbert y/a"]
    assert labels(("aalbert", None, "r/a/model_config.yaml")) == ["aalbert a, random weights"]
    assert labels(("hf_speech", "facebook/hubert-base-ls960", None)) == ["hf_speech hubert-base-ls960"]
    urls = labels(("aalbert", "https://h/one/last.ckpt", None), ("aalbert", "https://h/two/last.ckpt#sha256=1", None))
    assert len(set(map(folder_name, urls))) == 2


def test_labels_differ_even_where_long_or_odd():
    rows = [("aalbert", f"/{'x' * 200}/{end}", None) for end in ("a", "a", "A", "/")]
    found = labels(*rows)
    assert len(set(map(folder_name, found))) == 4 and all(len(label) <= 80 for label in found)
    for label in labels(("aalbert", "runs/a|b.ckpt", None), ("aalbert", "runs/a\\b\n.ckpt", None)):
        check_label(label)
