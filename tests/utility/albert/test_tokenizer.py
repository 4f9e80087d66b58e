"""ALBERT's tokenizer against Hugging Face's on a model trained here; the frame, training, and its files."""

import io
import logging
import random
from multiprocessing.reduction import ForkingPickler

import pytest
import sentencepiece
import torch
from transformers import AlbertTokenizer as PeerTokenizer

from mynah.utility.albert.encoding import kept_lengths
from mynah.utility.albert.tokenizer import AlbertTokenizer, load_tokenizer, normalize, tokenizer_from_plain
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.errors import UserError

SUBJECTS = ("a man", "two women", "the small dog", "someone", "a boy in a café")
VERBS = ("is playing", "slices", "rides", "was singing with", "jumps over")
OBJECTS = ("a guitar", "an onion", "his horse", "the naïve cat", "1,000 balls, quickly", "it's box", 'the "big" box')
HARD = (
    "A man is PLAYING the Guitar.",
    "Café déjà vu, naïve Ångström",
    "e\u0301le\u0300ve half ½ ligature ﬁne ①",
    "he said ``hi'' to ''them''",
    "  spaces\t\tand\nlines \u00a0 ",
    "日本 unknown ☃☃ characters ☃ 東",
    "zzzz qqqq xyzzy",
    "İstanbul ẞ ÇA Σ ℌAT",
    "ｆｕｌｌ Ｗｉｄｔｈ",
    "a\u200bb \u00adc",
    "\u0301a",
    "in 1,000, and 42, 5,",
    "▁▁ underlines",
    "",
    " ",
    "man " * 400,
    "x" * 300,
)


def captions() -> list[str]:
    return [f"{subject} {verb} {what}" for subject in SUBJECTS for verb in VERBS for what in OBJECTS]


ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}


def train(texts: list[str], **options) -> bytes:
    """A sentencepiece model with options that ours is never trained with."""
    content = io.BytesIO()
    options = {"vocab_size": 200, "hard_vocab_limit": False, "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=content, **options)
    return content.getvalue()


@pytest.fixture(scope="module")
def tokenizer() -> AlbertTokenizer:
    return AlbertTokenizer.train(captions(), 54)


@pytest.fixture(scope="module")
def peer(tokenizer, tmp_path_factory) -> PeerTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return PeerTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", HARD)
def test_hard_text_is_cut_as_hugging_face_cuts_it(text, tokenizer, peer):
    theirs = peer(text, return_token_type_ids=True)
    ours = tokenizer.encode(text)
    assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])
    assert tokenizer.text_ids(text) == ours.ids[1:-1]
    pieces = tokenizer.tokenize(text)
    known = [piece for piece, index in zip(pieces, ours.ids[1:-1], strict=True) if index != tokenizer.unk_id]
    ids = [index for index in ours.ids[1:-1] if index != tokenizer.unk_id]
    assert known == peer.convert_ids_to_tokens(ids)


def test_pairs_and_truncation_are_hugging_faces(tokenizer, peer):
    generator = random.Random(0)
    several = [*captions()[::7], *filter(None, HARD)]  # Hugging Face takes "" for no pair
    for _ in range(300):
        first, second = generator.choices(several, k=2)
        limit = generator.choice((None, 3, 4, 5, 8, 11, 16, 30))
        cut = {} if limit is None else {"truncation": "longest_first", "max_length": limit}
        theirs = peer(first, second, return_token_type_ids=True, **cut)
        ours = tokenizer.encode(first, second, limit)
        assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])
        assert tokenizer.encode(first, max_length=limit).ids == peer(first, **cut)["input_ids"]


def test_no_room_for_the_frame_is_an_error(tokenizer):
    assert tokenizer.encode("a man", max_length=2).ids == [2, 3]
    for pair, limit in ((None, 1), ("a dog", 2)):
        with pytest.raises(ValueError, match=f"max_length {limit} has no room"):
            tokenizer.encode("a man", pair, limit)


def test_the_longer_text_is_shortened_first():
    """One by one, which of equally long ones only being a matter of taste."""
    for first in range(8):
        for second in range(8):
            for room in range(16):
                one, two = kept_lengths(first, second, room)
                assert one <= first and two <= second and one + two == min(first + second, room)
                left = max(first - one, second - two)
                assert left == 0 or abs(one - two) <= 1 or (one < two) == (one == first)


def test_no_text_is_a_special_piece(tmp_path):
    """Characters that a tokenizer does not know become one piece, of whatever name."""
    tokenizer = AlbertTokenizer(train(["一个红色的圆向右移动", "蓝色方块向上"] * 20, **ALBERT), lower_case=False)
    for text in ("<pad>", "[CLS]", "[SEP]", "[MASK]", "一个 <pad> 圆"):
        ids = tokenizer.text_ids(text)
        assert not set(ids) & {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}, text
        assert tokenizer.unk_id in ids


@pytest.mark.parametrize(("lower_case", "keep_accents"), [(False, False), (True, True), (False, True)])
def test_case_and_accents_may_be_kept(lower_case, keep_accents, tmp_path):
    words = ["Ein Café in ÉVREUX und ein cafe in evreux", "Über alles uber ALLES"] * 20
    tokenizer = AlbertTokenizer(train(words, **ALBERT), lower_case, keep_accents)
    tokenizer.save(tmp_path)
    peer = PeerTokenizer.from_pretrained(tmp_path)
    read = load_tokenizer(tmp_path)
    assert (read.lower_case, read.keep_accents) == (lower_case, keep_accents)
    for text in ("Ein Café in Évreux", "ÜBER alles", "e\u0301vreux"):
        assert tokenizer.encode(text).ids == read.encode(text).ids == peer(text)["input_ids"]
    assert load_tokenizer(tmp_path, lower_case=True).lower_case


@pytest.mark.parametrize(
    "form", ["9 in {}, he had {} and {}", "x9 in x{}, and y{}, z{}"]
)  # "▁9" is known, and is not
def test_a_number_before_a_comma_is_cut_without_it(form):
    """The rule of the official tokenizer, for the word pieces such as "▁9," that sentencepiece may learn."""
    texts = [form.format(year, year % 97, year % 10) for year in range(1900, 2020)] * 3
    tokenizer = AlbertTokenizer(train(texts, **ALBERT, user_defined_symbols=["9,"]))

    def numbers(pieces: list[str]) -> list[str]:
        return [piece for piece in pieces if piece[-1] == "," and piece[-2:-1].isdigit()]

    for text in texts[9:120:10]:
        assert numbers(tokenizer.pieces.encode(text, out_type=str))
        pieces = tokenizer.tokenize(text)
        assert not numbers(pieces) and all(pieces)
        assert "".join(pieces).replace("▁", " ").split() == text.split()


def test_special_word_pieces_have_alberts_ids(tokenizer):
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert ids == [0, 1, 2, 3, 4] and tokenizer.special_ids == frozenset(ids)
    names = [tokenizer.pieces.id_to_piece(one) for one in ids]
    assert names == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]


def test_no_text_can_hold_a_special_word_piece(tokenizer):
    for text in ("[MASK] [SEP] [CLS] <pad>", "<unk>[MASK]"):
        assert not {0, 2, 3, 4} & set(tokenizer.text_ids(text))


def test_decoding_gives_the_text_again(tokenizer, peer):
    for text in (*captions()[::5], *HARD[:5]):
        ids = tokenizer.encode(text).ids
        theirs = peer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids) == " ".join(theirs.split())
    text = captions()[17]
    assert tokenizer.decode(torch.tensor(tokenizer.encode(text).ids)) == normalize(text)
    pair = tokenizer.encode("a man", "a ☃").ids
    assert tokenizer.decode(pair) == "a man a"
    assert tokenizer.decode(pair, skip_special=False) == "[CLS] a man [SEP] a <unk> [SEP]"
    assert tokenizer.decode([]) == tokenizer.decode([2, 3]) == ""


def test_ids_of_another_vocabulary_are_refused(tokenizer):
    for wrong in (tokenizer.vocab_size, -1):
        with pytest.raises(ValueError, match=f"id {wrong} is not one of the {tokenizer.vocab_size} word pieces"):
            tokenizer.decode([5, wrong])


def test_training_gives_the_same_model_again(tokenizer):
    again = AlbertTokenizer.train(iter(captions()), 54)
    assert again.proto == tokenizer.proto and tokenizer.vocab_size == 54


def test_the_words_of_a_small_corpus_become_word_pieces_not_letters():
    """sentencepiece's own candidates are what several words share, so of such a corpus only letters."""
    colors, shapes = ("red", "green", "blue"), ("circle", "square", "ring")
    texts = [f"a {color} {shape} moves up" for color in colors for shape in shapes]
    tokenizer = AlbertTokenizer.train(texts, 200)
    for word in (*colors, *shapes, "moves", "up"):
        assert tokenizer.tokenize(f"a {word}") == ["▁a", f"▁{word}"]
    sentence = "两个人在球场上打篮球" * 3
    assert (
        AlbertTokenizer.train([sentence, sentence[:-4]], 100).decode(
            AlbertTokenizer.train([sentence, sentence[:-4]], 100).encode(sentence).ids
        )
        == sentence
    )


def test_too_large_a_vocabulary_is_lowered(caplog):
    with caplog.at_level(logging.INFO):
        tokenizer = AlbertTokenizer.train(captions(), 5000)
    assert tokenizer.vocab_size < 5000
    assert f"have use for {tokenizer.vocab_size} word pieces, not for the 5000 asked for" in caplog.text


def test_too_small_a_vocabulary_and_no_text_are_refused():
    with pytest.raises(UserError, match=r"no tokenizer of 12 word pieces from 175 texts: .* give more word pieces"):
        AlbertTokenizer.train(captions(), 12)
    for nothing in ([], ["", "  ", "\n"]):
        with pytest.raises(UserError, match="every text is empty"):
            AlbertTokenizer.train(nothing, 100)


def test_a_checkpoint_keeps_it(tokenizer, tmp_path):
    torch.save(tokenizer.to_plain(), tmp_path / "plain.pt")
    plain = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert plain["proto"].dtype == torch.uint8
    again = tokenizer_from_plain(plain)
    assert again.proto == tokenizer.proto and again.encode(HARD[1]) == tokenizer.encode(HARD[1])
    for wrong in ({"kind": "letters"}, {}, None):
        with pytest.raises(UserError, match="known are sentencepiece, wordpiece"):
            tokenizer_from_plain(wrong)


def test_other_processes_get_it(tokenizer):
    assert ForkingPickler.loads(ForkingPickler.dumps(tokenizer)).encode(HARD[0]) == tokenizer.encode(HARD[0])


def test_a_folder_says_whose_tokenizer_it_holds(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"neither spiece\.model \(ALBERT\) nor vocab\.txt \(BERT\) there"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    assert isinstance(load_tokenizer(tmp_path), WordPieceTokenizer)
    tokenizer.save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), AlbertTokenizer)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not readable as JSON"):
        load_tokenizer(tmp_path)


def test_a_wrong_file_is_one_clear_error(tmp_path):
    path = tmp_path / "spiece.model"
    with pytest.raises(UserError, match=r"spiece\.model: no such file"):
        AlbertTokenizer.from_file(path)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"spiece\.model: not a sentencepiece model \(14 bytes\)"):
        AlbertTokenizer.from_file(path)
    path.write_bytes(train(captions()))
    with pytest.raises(UserError, match=r"spiece\.model: a sentencepiece model without <pad>, so not one of ALBERT"):
        AlbertTokenizer.from_file(path)


def test_real_captions(shared_data, tmp_path):
    lines = (shared_data / "captions" / "MSVD_train.tsv").read_text(encoding="utf-8").splitlines()
    texts = [caption for line in lines for caption in line.rpartition("\t")[0].split(", ") if caption.strip()]
    tokenizer = AlbertTokenizer.train(texts[:8000], 1000)
    assert tokenizer.vocab_size == 1000
    tokenizer.save(tmp_path)
    peer = PeerTokenizer.from_pretrained(tmp_path)
    validation_items = texts[8000:12000]
    ids = [tokenizer.encode(text).ids for text in validation_items]
    assert ids == peer(validation_items)["input_ids"]
    assert sum(tokenizer.unk_id in one for one in ids) < 5
    lowered = [" ".join(text.lower().split()) for text in validation_items]
    same = [tokenizer.decode(one) == text for one, text in zip(ids, lowered, strict=True)]
    assert sum(same) > 0.99 * len(same)
