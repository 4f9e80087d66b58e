"""BERT's tokenizer against Hugging Face's; its files."""

import random

import pytest
import torch
from transformers import BertTokenizer as PeerTokenizer

from mynah.utility.albert import AlbertConfig, AlbertModel
from mynah.utility.albert.tokenizer import load_tokenizer, tokenizer_from_plain
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "man", "play", "##ing", "##s", "##ed", "guitar", "cafe", "Cafe", "Café", "is", "東", "京", "##1", "1"]
VOCABULARY = [*SPECIAL, *".,!?$^'()-[]", *LETTERS[:20], *(f"##{letter}" for letter in LETTERS[:20]), *WORDS]
HARD = (
    "The Man is PLAYING, the guitars!",
    "Café déjà vu",
    "東京 abc東d",
    "a\u200bb\u00adc\x00d\ufffde",
    "$5^2~`_|",
    "a" * 100,
    "a" * 101,
    "İstanbul",
    "don't... (no)[yes]",
    "a\u2028b\u3000c\u00a0d\te\nf\x0bg",
    "한국어 カナ",
    "\u0301man e\u0301",
    "“quotes”—dash…",
    "played 111 1a xyz",
    "",
    "   ",
    "man " * 300,
)


@pytest.fixture
def tokenizer(tmp_path) -> WordPieceTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return load_tokenizer(tmp_path)


@pytest.mark.parametrize("chinese_apart", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("lower_case", [True, False])
def test_hard_text_is_cut_as_hugging_face_cuts_it(lower_case, strip_accents, chinese_apart, tokenizer, tmp_path):
    tokenizer = WordPieceTokenizer(tokenizer.vocabulary, lower_case, strip_accents, chinese_apart)
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").to_plain() == tokenizer.to_plain()
    peer = PeerTokenizer.from_pretrained(tmp_path / "saved")
    for text in HARD:
        theirs, ours = peer(text), tokenizer.encode(text)
        assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"]), text
        assert tokenizer.tokenize(text) == peer.convert_ids_to_tokens(ours.ids)[1:-1]
        said = peer.decode(ours.ids, skip_special_tokens=True).replace(" ' ", "'")  # only its older versions did
        assert tokenizer.decode(ours.ids) == said


def test_any_text_is_cut_as_hugging_face_cuts_it(tokenizer, tmp_path):
    peer = PeerTokenizer.from_pretrained(tmp_path)
    generator = random.Random(0)
    characters = [*VOCABULARY[6:], *"ÄÉßﬁ½Σ☃한\u0301\u00a0\t", " ", " ", " "]
    for _ in range(300):
        first, second = ("".join(generator.choices(characters, k=12)).replace("##", "") for _ in range(2))
        limit = generator.choice((None, 3, 6, 9))
        cut = {} if limit is None else {"truncation": "longest_first", "max_length": limit}
        theirs, ours = peer(first, second, **cut), tokenizer.encode(first, second, limit)
        assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])


def test_special_word_pieces_are_found_by_name(tokenizer):
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert ids == [0, 2, 3, 4, 5] and tokenizer.special_ids == frozenset(ids)
    assert tokenizer.vocab_size == len(VOCABULARY)


def test_special_word_pieces_in_the_text(tokenizer):
    assert not {0, 3, 4, 5} & set(tokenizer.text_ids("[MASK] [SEP][PAD]"))
    ids = tokenizer.encode("the xyz", "man").ids
    assert tokenizer.decode(ids) == "the man"
    assert tokenizer.decode(ids, skip_special=False) == "[CLS] the [UNK] [SEP] man [SEP]"
    with pytest.raises(ValueError, match="is not one of the"):
        tokenizer.decode([len(VOCABULARY)])


def test_punctuation_is_decoded_as_it_is_written(tokenizer):
    for text in ("the man is playing, a guitar!", "it's a man.", "is a cafe? no - (no)"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text.replace("(no)", "( no )")


def test_a_checkpoint_keeps_it(tokenizer):
    for one in (tokenizer, WordPieceTokenizer(VOCABULARY, lower_case=False)):
        again = tokenizer_from_plain(one.to_plain())
        assert again.vocabulary == VOCABULARY and again.lower_case == one.lower_case
    plain = WordPieceTokenizer(VOCABULARY, True, False, False).to_plain()
    assert tokenizer_from_plain(plain).to_plain() == plain
    older = {key: plain[key] for key in ("kind", "vocabulary", "lower_case")}
    assert tokenizer_from_plain(older).to_plain() == WordPieceTokenizer(VOCABULARY).to_plain()


def test_lines_of_windows_are_read(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(VOCABULARY).encode() + b"\r\n")
    assert WordPieceTokenizer.from_file(tmp_path / "vocab.txt").vocabulary == VOCABULARY


def test_a_wrong_file_is_one_clear_error(tmp_path):
    path = tmp_path / "vocab.txt"
    with pytest.raises(UserError, match=r"vocab\.txt: no such file"):
        WordPieceTokenizer.from_file(path)
    path.write_text("[PAD]\n[UNK]\na\n")
    with pytest.raises(UserError, match=r"vocab\.txt: a vocabulary of 3 word pieces without \[CLS\]"):
        WordPieceTokenizer.from_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"vocab\.txt: not UTF-8 text"):
        WordPieceTokenizer.from_file(path)


@pytest.mark.parametrize("pairs", [None, ["is it?", "the guitar the guitar"]])
@pytest.mark.parametrize("cut", [{}, {"truncation": True, "max_length": 6}])
def test_it_is_called_as_hugging_faces_are(tokenizer, tmp_path, pairs, cut):
    peer = PeerTokenizer.from_pretrained(tmp_path)
    texts = ["The man is playing, the guitars!", "man"]
    for padding in (True, False):
        ours, theirs = (one(texts, pairs, padding=padding, **cut) for one in (tokenizer, peer))
        assert {name: ours[name] for name in ours} == {name: theirs[name] for name in theirs}
    ours, theirs = (one(texts, pairs, padding=True, return_tensors="pt", **cut) for one in (tokenizer, peer))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    single = tokenizer(texts[0], pairs and pairs[0])
    assert single == dict(peer(texts[0], pairs and pairs[0]))
    model = AlbertModel(AlbertConfig(vocab_size=len(VOCABULARY), hidden_size=16, num_attention_heads=2)).eval()
    padded = model(**ours).last_hidden_state[1]
    alone = model(**tokenizer(texts[1:], pairs and pairs[1:], return_tensors="pt", **cut)).last_hidden_state[0]
    torch.testing.assert_close(padded[: len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_wrong_calls_are_told(tokenizer):
    for given, message in (
        ({"return_tensors": "tf"}, "expected 'pt' or None, got 'tf'"),
        ({"return_tensors": "pt"}, "give padding=True"),
        ({"truncation": True}, "needs max_length"),
        ({"text_pair": ["a"]}, "2 texts, but 1 pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenizer(["a", "a man"], **given)


def test_a_hub_name_that_is_no_folder_says_that_a_folder_is_needed():
    with pytest.raises(UserError, match=r"albert/albert-base-v2: no such folder; .* fetch it first"):
        AlbertModel.from_pretrained("albert/albert-base-v2")
