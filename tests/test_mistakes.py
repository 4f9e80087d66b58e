"""Mistakes on the command line: one message each, before anything is written."""

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from mynah.commands import downstream as run_downstream
from mynah.commands import pretrain as run_pretrain
from mynah.utility.errors import UserError

PRETRAINING = {
    "-u": "-u",
    "-u aalbert": "-n NAME is needed",
    "-n x -u Aalbert": "did you mean aalbert",
    "-n x -u fbank": "nothing to pretrain",
    "-n x -u ../aalbert": "unknown upstream",
    "-n x -u aalbert -a --init-from nowhere": "nowhere",
    "-n x -u aalbert -e nowhere": "nowhere",
    "-e {tmp}": "no checkpoints/last.ckpt in this directory",
    "-e {tmp}/empty.ckpt": "lies in no experiment",
    "-e {tmp}/text.ckpt -n y": "not a readable checkpoint",
    "-e {tmp}/empty.ckpt -n y": "empty: it has no bytes",
    "-n x -u aalbert --init-from {tmp}/text.ckpt": "not a readable checkpoint",
    "-n x -u aalbert --init-from https://": "not a URL that can be downloaded",
    "-n x -u aalbert -c {tmp}": "is a folder; expected a YAML file",
    "-n x -u aalbert -c {tmp}/text.ckpt": "expected a mapping",
    "-n x -u aalbert -c {tmp}/empty.yaml": "is empty",
    "-n x -u aalbert -c {tmp}/twice.yaml": "given twice|twice",
    "-n x -u aalbert -c {tmp}/latin.yaml": "not UTF-8",
    "-n x -u aalbert -g {tmp}/nothing.yaml": "no such file",
    "-n x -u aalbert --plugin-path {tmp}": "holds neither upstream/ nor downstream/",
    "-n x -u aalbert -p {tmp}/text.ckpt": "text.ckpt",
    "-n x -u aalbert --seed -3": "seed",
    "-n x -u aalbert --device cuda": "cuda",
    "-n x -u aalbert -o": "-o",
    "-n x -u aalbert -o seed": "expected KEY=VALUE",
    "-n x -u aalbert -o =3": "expected KEY=VALUE",
    "-n x -u aalbert -o model=3": "model",
    "-n x -u aalbert -o model.hidden_size=": "hidden_size",
    "-n x -u aalbert -o model.hidden_size=abc": "expected a whole number|expected a number|whole number",
    "-n x -u aalbert -o model.hidden_size=1e30": "64 bits|at most",
    "-n x -u aalbert -o model.hidden_size=100000000000000000000": "64 bits",
    "-n x -u aalbert -o model.num_hidden_layers=1000000": "num_hidden_layers",
    "-n x -u aalbert -o model.num_attention_heads=7": "does not divide",
    "-n x -u aalbert -o model.hidden_act=swish": "hidden_act",
    "-n x -u aalbert -o modle.hidden_size=8": "did you mean model.hidden_size",
    "-n x -u aalbert -o trainer.stepz=8": "unknown key",
    "-n x -u aalbert -o trainer.max_epochs=8": "cannot be set",
    "-n x -u aalbert -o trainer.strategy=fsdp trainer.gradient_clip_val=1": "strategy fsdp",
    "-n x -u aalbert -o trainer.strategy=bogus": "bogus",
    "-n x -u aalbert -o trainer.accelerator=bogus": "bogus",
    "-n x -u aalbert -o trainer.precision=bogus": "bogus",
    "-n x -u aalbert -o trainer.precision=bf16-true": "bf16-mixed",
    "-n x -u aalbert -o trainer.devices=[]": "devices",
    "-n x -u aalbert -o trainer.val_check_interval=7 trainer.accumulate_grad_batches=3": "multiple",
    "-n x -u aalbert -o optimizer.name=adamx": "adamx",
    "-n x -u aalbert -o scheduler.name=cosine_": "scheduler.name",
    "-n x -u aalbert -o datarc.file_path=[a]": "file_path",
    "-n x -u aalbert -o datarc.file_path.mine={tmp}/nowhere": "nowhere",
    "-n x -u aalbert -o datarc.file_path.mine={tmp}": "no audio files below",
    "-n x -u aalbert -o datarc.file_path.mine={tmp}/text.ckpt": "not a folder",
    "-n x -u aalbert -o datarc.file_path.mine={tmp}/table.csv": "no column path",
    "-n x -u aalbert -o masking.mask_consecutive_min=9 masking.mask_consecutive_max=3": "mask_consecutive",
    "-n x -u aalbert -o features.front_end=wavelet": "front_end",
    "-n x -u aalbert -o objective.name=contrastive": "objective",
    "-n x -u aalbert -o features.spectrogram.sample_rate=8000": "16000 Hz",
}
TASKS = {
    "-n x -d voxceleb1_speaker": "-u NAME is needed|-u",
    "-n x -u fbank": "-d",
    "-u fbank -d voxceleb1_speaker": "-n NAME is needed",
    "-n x -u fbank -d voxceleb": "voxceleb1_speaker",
    "-n x -u fbank -d vatex_caption": "reads speech, but task 'vatex_caption' needs video",
    "-n x -u fbank -d voxceleb1_speaker -k {tmp}/text.ckpt": "has no weights",
    "-n x -u fbank -d voxceleb1_speaker -f": "has no weights to train",
    "-n x -u aalbert -d voxceleb1_speaker -k {tmp}/nowhere": "no such checkpoint",
    "-n x -u aalbert -d voxceleb1_speaker -k {tmp}/text.ckpt": "not a readable checkpoint",
    "-n x -u aalbert -d voxceleb1_speaker -k ftp://host/a": "not a URL",
    "-n x -u aalbert -d voxceleb1_speaker -k=": "given as an empty text",
    "-n x -u aalbert -d voxceleb1_speaker -k https://host/a#sha256=1": "64 hexadecimal digits",
    "-n x -u aalbert -d voxceleb1_speaker -g {tmp}/model.yaml -t {tmp}/model.yaml": "-t",
    "-n x -u aalbert -d voxceleb1_speaker -g {tmp}/nowhere.yaml": "nowhere.yaml",
    "-n x -u aalbert -d voxceleb1_speaker -g {tmp}/model.yaml -l 7": "not one of the upstream's 2 hidden states",
    "-n x -u aalbert -d voxceleb1_speaker -g {tmp}/model.yaml -l 1 -s last_hidden_state": "layer",
    "-n x -u fbank -d voxceleb1_speaker -o datarc.file_path={tmp}": "no audio files below",
    "-n x -u fbank -d voxceleb1_speaker -o datarc.split_list={tmp}/no.txt datarc.file_path={corpus}": "no.txt",
    "-n x -u fbank -d voxceleb1_speaker -o datarc.split_list={tmp}/no.txt": "for which datarc.split_list cannot be",
    "-n x -u fbank -d sv_voxceleb1 -o datarc.trial_list={tmp}/no.txt": "datarc.file_path: missing",
    "-n x -u fbank -d speech_commands -c {tmp}/paths.yaml": "for which datarc.test_path cannot be given",
    "-n x -u fbank -d speech_commands -o datarc.test_path={tmp}": "for which datarc.test_path cannot be given",
    "-n x -u fbank -d phone_linear -o datarc.alignments={tmp}": "for which datarc.alignments cannot be given",
    "-n x -u fbank -d voxceleb1_speaker -o datarc.max_seconds=0": "max_seconds",
    "-n x -u fbank -d voxceleb1_speaker -o inference.window_seconds=-1": "window_seconds",
    "-n x -u fbank -d voxceleb1_speaker -o features.cache_gib=-1": "cache_gib",
    "-n x -u fbank -d example -o datarc.file_path={corpus}": "expected a .csv or .tsv file",
    "-n x -u fbank -d voxceleb1_speaker --input a.wav": "--input needs -m inference",
    "-n x -u fbank -d voxceleb1_speaker --split dev": "--split needs -m evaluate",
    "-n x -u fbank -d voxceleb1_speaker --pictures p": "--pictures needs -m inference",
    "-m inference --input a.wav": "needs -e",
    "-m inference -e {tmp}": "needs --input",
    "-m evaluate": "needs -e",
    "-m evaluate -e {tmp}": "no checkpoints/last.ckpt",
    "-m evaluate -e {tmp}/text.ckpt": "lies in no experiment",
    "-m inference --input a.wav -e {tmp}/text.ckpt": "not a readable checkpoint",
    "-m evaluate -e {tmp}/nowhere": "nowhere",
}


@pytest.fixture
def place(tmp_path):
    """A folder with some files that are none of what is asked for."""
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "text.ckpt").write_text("not a checkpoint\n")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    (tmp_path / "latin.yaml").write_bytes("name: M\xfcller\n".encode("latin-1"))
    (tmp_path / "table.csv").write_text("file,label\na.wav,b\n")
    model = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    short = {"trainer": {"max_steps": 1}}
    paths = {"datarc": {"test_path": str(tmp_path)}}
    (tmp_path / "paths.yaml").write_text(yaml.safe_dump({**paths, **short, "demo": short}))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": model}))
    return tmp_path


@pytest.fixture
def refused(place, corpus, demo_cache, capsys):
    """refused(program, arguments) -> what is said; nothing may be written by it."""

    def run(program, arguments):
        given = [each.format(tmp=place, corpus=corpus) for each in arguments.split()]
        before = sorted(place.rglob("*"))
        try:
            root = [] if "-p" in given else ["-p", str(place / "results")]
            program.run(program.parse_arguments("p", [*root, *given]))
        except UserError as error:
            said = str(error)
        except SystemExit as end:  # of argparse
            assert end.code == 2
            said = capsys.readouterr().err
        else:
            pytest.fail(f"{arguments}: was accepted")
        assert sorted(place.rglob("*")) == before
        assert "Traceback" not in said and len(said.splitlines()) < 40
        return said

    return run


@pytest.mark.parametrize("arguments", PRETRAINING)
def test_a_mistake_of_pretraining_is_one_message(refused, arguments):
    assert matches(PRETRAINING[arguments], refused(run_pretrain, arguments))


@pytest.mark.parametrize("arguments", TASKS)
def test_a_mistake_of_a_task_is_one_message(refused, arguments):
    assert matches(TASKS[arguments], refused(run_downstream, arguments))


def matches(words, said):
    """Whether any of the alternatives, divided by |, is in the text; for the assertion's sake both."""
    return (any(each in said for each in words.split("|")), said)[0] or pytest.fail(f"expected {words!r} in: {said}")


# -- disks and files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kilobytes", [2, 8, 60])
def test_a_disk_that_is_full_at_any_point_is_one_line(tmp_path, tiny_pretraining, capfd, kilobytes):
    """A limit on the size of a file, which the system reports as a full disk is reported: an OSError."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, 1024 * kilobytes))
            short = [*tiny_pretraining, "trainer.max_steps=2", "trainer.val_check_interval=2"]
            run_pretrain.main("p", ["-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *short])
        except SystemExit as end:
            status = end.code
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    said = capfd.readouterr().err
    assert os.waitstatus_to_exitcode(status) == 2 and "Traceback" not in said, said
    assert "File too large" in said or "could not be" in said, said
    assert not list(tmp_path.rglob("*.tmp"))


def test_names_that_are_not_utf8_or_hold_line_breaks_are_skipped_by_name(tmp_path, corpus, tiny_pretraining, caplog):
    mine = shutil.copytree(corpus, tmp_path / "mine")
    for name in (b"na\xefve.wav", b"two\nlines.wav", "fünf\u2028.wav".encode(), b"tab\there.wav"):
        with open(os.path.join(os.fsencode(mine), name), "wb") as file:  # noqa: PTH118, PTH123 (names as bytes)
            file.write(b"RIFF broken")
    more = [f"datarc.file_path={{tones: {mine}}}", "trainer.max_steps=1", "datarc.max_bad_fraction=0.5"]
    arguments = ["-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *tiny_pretraining, *more]
    assert run_pretrain.run(run_pretrain.parse_arguments("p", arguments)) == 0
    lines = (tmp_path / "run" / "skipped_files.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4 and all(line.count("\t") == 1 for line in lines)
    assert any(r"na\udcefve.wav" in line for line in lines) and any(r"two\nlines.wav" in line for line in lines)


def test_another_number_of_processes_says_what_it_means(tmp_path, script, tiny_pretraining):
    one = [*tiny_pretraining, "trainer.max_steps=2", "dataloader.batch_size=4", "trainer.accelerator=cpu"]
    status, output = script("run_pretrain.py", "-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *one)
    assert status == 0, output
    two = ["trainer.max_steps=4", "dataloader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp"]
    status, output = script("run_pretrain.py", "-e", str(tmp_path / "run"), "-o", *two)
    assert status == 0, output
    assert "2 processes instead of 1: each step sees the items that it would have seen" in output


def test_a_dead_process_of_several_ends_the_run_in_a_line_with_what_is_saved(tmp_path, start, tiny_pretraining):
    more = ["trainer.max_steps=100000", "checkpoint.save_every_n_steps=1", "dataloader.batch_size=2"]
    more += ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    process = start(
        "run_pretrain.py", "-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *tiny_pretraining, *more
    )
    previous = tmp_path / "run" / "checkpoints" / "previous.ckpt"
    while not previous.is_file():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    others = [pid for pid in pids if _is_rank_of(pid, process.pid)]
    assert len(others) == 1
    os.kill(others[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, None), output
    assert "Traceback" not in output, output
    assert "process" in output and f"-e {tmp_path / 'run'}" in output


def _is_rank_of(pid, parent):
    """Whether a process is another rank of a run: a child with the same program, no worker or resource tracker."""
    try:
        is_child = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent
        return is_child and "run_pretrain" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
