"""Hostile and damaged files: nothing that they name is called, and one message comes of it.

Every pickle here is written by hand, opcode by opcode, so that no library stands between it and the reader.
"""

import argparse
import io
import struct
import zipfile
from collections import OrderedDict, defaultdict, deque
from pathlib import Path

import pytest
import torch

import mynah
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import read_checkpoint
from mynah.utility.experiments.s3prl_files import read_s3prl
from mynah.utility.experiments.stand_ins import MOST_NAMES, StandIn, load_with_stand_ins
from tests.upstream import s3prl_peer as peer

PROTOCOL, STOP = b"\x80\x02", b"."


def called(name: str, *arguments: str) -> bytes:
    """GLOBAL, the arguments as a tuple, REDUCE. name: "module name"."""
    module, _, attribute = name.partition(" ")
    texts = b"".join(b"X" + struct.pack("<I", len(text)) + text.encode() for text in arguments)
    return b"c" + f"{module}\n{attribute}\n".encode() + b"(" + texts + b"tR"


def entry(value: bytes) -> bytes:
    """A pickle of {"Transformer": {}, "Config": {"transformer": {}}, "x": value}."""

    def text(word: str) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    config = b"}" + text("transformer") + b"}s"
    pairs = text("Transformer") + b"}" + text("SpecHead") + b"}" + text("Config") + config + text("x") + value
    return PROTOCOL + b"}(" + pairs + b"u" + STOP


def evil(marker: Path) -> dict[str, bytes]:
    """Pickles that would make the file `marker` if anything in them were done."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    stacked = b"\x8c\x08builtins\x8c\x04eval\x93" + b"(" + b"X" + struct.pack("<I", len(code)) + code.encode() + b"tR"
    return {
        "os.system": entry(called("os system", command)),
        "posix.system": entry(called("posix system", command)),
        "builtins.eval": entry(called("builtins eval", code)),
        "__builtin__.eval, of Python 2": entry(called("__builtin__ eval", code)),
        "builtins.exec": entry(called("builtins exec", code)),
        "builtins.open": entry(called("builtins open", str(marker), "w")),
        "subprocess.getoutput": entry(called("subprocess getoutput", command)),
        "pathlib.Path.touch, dotted": entry(called("pathlib Path.touch", str(marker))),
        "torch.load": entry(called("torch load", str(marker))),
        "torch.hub's": entry(called("torch.hub load", str(marker), "x")),
        "torch.jit": entry(called("torch.jit load", str(marker))),
        "getattr of builtins": entry(
            b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(X\x02\x00\x00\x00ostRX\x06\x00\x00\x00systemtR(X"
            + struct.pack("<I", len(command))
            + command.encode()
            + b"tR"
        ),
        "reduce within reduce": entry(
            b"cfunctools\npartial\n(cbuiltins\neval\nX" + struct.pack("<I", len(code)) + code.encode() + b"tR(tR"
        ),
        "NEWOBJ": entry(
            b"csubprocess\nPopen\n(X\x05\x00\x00\x00touchX"
            + struct.pack("<I", len(str(marker)))
            + str(marker).encode()
            + b"lt\x81"
        ),
        "BUILD with __setstate__": entry(
            b"csite\n_Helper\n)\x81}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb" + b"X\x01\x00\x00\x00ab"
        ),
        "BUILD of a class": entry(b"cbuiltins\nprint\n}X\x08\x00\x00\x00__call__cbuiltins\neval\nsb"),
        "BUILD of an OrderedDict's items": entry(
            b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemscbuiltins\neval\nsb"
        ),
        "INST": entry(b"(X" + struct.pack("<I", len(code)) + code.encode() + b"ibuiltins\neval\n"),
        "OBJ": entry(b"(cbuiltins\neval\nX" + struct.pack("<I", len(code)) + code.encode() + b"o"),
        "STACK_GLOBAL": entry(stacked),
        "STACK_GLOBAL of protocol 4": b"\x80\x04" + entry(stacked)[2:],
        "EXT1": entry(b"\x82\x01"),
        "a tensor's rebuilder with a function": entry(
            b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\neval\ncbuiltins\nint\n(X"
            + struct.pack("<I", len(code))
            + code.encode()
            + b"t}tR"
        ),
        "a persistent id that is a module": entry(
            b"(X\x06\x00\x00\x00modulecbuiltins\neval\nX\x01\x00\x00\x00ax\x00tQ"
        ),
    }


NONSENSE = {
    "huge memo": entry(b"Nr\xff\xff\xff\xff"),
    "a memo that is not there": entry(b"j\xff\xff\xff\xff"),
    "huge text": entry(b"X\xff\xff\xff\xffabc"),
    "huge bytes": entry(b"\x8e" + b"\xff" * 7 + b"\x7fabc"),
    "huge number": entry(b"\x8b\xff\xff\xff\x7f1"),
    "deep": entry(b"]" * 10_000 + b"a" * 9_999),
    "a dictionary that holds itself": entry(b"}q\x00X\x01\x00\x00\x00ah\x00s"),
    "stack underflow": PROTOCOL + b"aaaa" + STOP,
    "no stop": entry(b"N")[:-1],
    "nothing": b"",
    "only stop": STOP,
    "many names": entry(b"".join(b"cm%d\nx\n0" % number for number in range(3 * MOST_NAMES)) + b"N"),
    "names that are no text": entry(b"c\xff\xfe\n\xff\n"),
    "an empty name": entry(b"c\n\n"),
    "a name with spaces": entry(b"ca b\nc d\n"),
    "a mapping with a list for a key": entry(b"}]Ns"),
}


def zipped(pickled: bytes) -> bytes:
    """In torch's format of today."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return file.getvalue()


def legacy(pickled: bytes) -> bytes:
    """In its format from before 1.6: magic number, version, machine, object, keys of its tensors."""
    header = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    machine = b"\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88u."
    return header + machine + pickled + b"\x80\x02]q\x00."


FORMATS = {"zip": zipped, "legacy": legacy, "bare": bytes}


def test_the_formats_written_here_are_read(tmp_path):
    for name in ("zip", "legacy"):
        (tmp_path / name).write_bytes(FORMATS[name](entry(called("argparse Namespace"))))
        read = load_with_stand_ins(tmp_path / name)
        assert read.keys() == {"Transformer", "SpecHead", "Config", "x"}
        assert type(read["x"]) is StandIn


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", evil(Path("x")))
def test_nothing_that_a_file_names_is_called(tmp_path, case, form):
    marker, path = tmp_path / "marker", tmp_path / "states-1.ckpt"
    path.write_bytes(FORMATS[form](evil(marker)[case]))
    for attempt in (
        lambda: mynah.load("tera", ckpt=path),
        lambda: mynah.load("aalbert", ckpt=str(path)),
        lambda: read_checkpoint(path, "pretrain"),
    ):
        with pytest.raises(UserError, match=r"states-1\.ckpt: [^\n]+$"):
            attempt()
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_one_message(tmp_path, case, form):
    path = tmp_path / "states-1.ckpt"
    path.write_bytes(FORMATS[form](NONSENSE[case]))
    with pytest.raises(UserError, match=r"states-1\.ckpt: [^\n]+$"):
        mynah.load("tera", ckpt=path)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_a_real_file_cut_anywhere_is_one_message(tmp_path, zip_format):
    whole = peer.write(tmp_path / "whole.ckpt", peer.content("audio_albert"), zip_format).read_bytes()
    path = tmp_path / "cut.ckpt"
    for size in [0, 1, 2, 30, 100, *range(1000, len(whole), len(whole) // 6), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.ckpt: [^\n]+$"):
            mynah.load("aalbert", ckpt=path)


class Odd:
    """An object whose class is gone when it is read."""

    def __init__(self):
        self.state = defaultdict(dict, {0: {"step": 3}})
        self.queue = deque([1, 2])


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 1


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        Slotted(),
        Odd,
        argparse.Namespace(path=Path("/x"), names={"a"}),
        [Slotted(), {"a": Odd()}],
        Odd().__init__,
    ],
    ids=["object", "slots", "class", "namespace", "nested", "method"],
)
def test_objects_are_left_out_and_what_is_beside_them_is_read(tmp_path, value, zip_format):
    weights = OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.float16))
    torch.save({"weights": weights, "other": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=zip_format)
    read = load_with_stand_ins(tmp_path / "x.pt")
    assert all(torch.equal(read["weights"][name], weight) for name, weight in weights.items())
    assert type(read["other"]) in (StandIn, list) or read["other"] is StandIn


def test_what_was_let_in_for_a_file_is_let_in_for_no_other(tmp_path):
    torch.save({"x": Slotted()}, tmp_path / "x.pt")
    before = torch.serialization.get_safe_globals()
    load_with_stand_ins(tmp_path / "x.pt")
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "x.pt", weights_only=True)


@pytest.mark.parametrize("content", [{}, [1], {"state_dict": {}}, torch.zeros(3), {"Transformer": 3, "Settings": 4}])
def test_other_files_are_none_of_s3prls(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    if isinstance(content, dict) and "Transformer" in content:
        with pytest.raises(UserError, match="without a configuration"):
            read_s3prl(tmp_path / "x.pt")
    else:
        assert read_s3prl(tmp_path / "x.pt") is None


def test_a_mockingjay_of_2019_is_told_apart(tmp_path):
    torch.save({"Mockingjay": {}, "SpecHead": {}, "Settings": {"Config": {"mockingjay": {}}}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="a Mockingjay of 2019"):
        mynah.load("mockingjay", ckpt=tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["audio_albert", "mockingjay", "tera"])
@pytest.mark.parametrize("layout", peer.LAYOUTS)
def test_where_a_checkpoint_of_mynah_is_expected_the_name_to_give_is_said(tmp_path, kind, layout):
    path = peer.write(tmp_path / "a.ckpt", peer.content(kind, layout))
    with pytest.raises(
        UserError, match=f"a checkpoint of s3prl, not of Mynah.*-k with -u {peer.NAMES.get(kind, 'tera')}"
    ):
        read_checkpoint(path, "downstream")
