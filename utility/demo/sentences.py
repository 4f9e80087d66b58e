"""Sentences for the demo speech, put together from parts; made here, so that nothing need be fetched."""

import random

OPENERS = (
    "", "", "", "In the end", "This morning", "Before noon", "Every winter", "As usual",
    "To our surprise", "After the storm", "On Sunday", "Last summer", "By candle light", "Without a word",
    "Once a year",
)  # fmt: skip
QUALITIES = (
    "old", "quiet", "clever", "hungry", "young", "cheerful", "tired", "famous", "patient", "gentle",
    "curious", "proud", "stubborn", "lonely", "friendly", "nervous", "polite", "sleepy", "careless",
    "brave",
)  # fmt: skip
ACTORS = (
    "captain", "baker", "teacher", "farmer", "doctor", "painter", "gardener", "fisherman", "shepherd",
    "tailor", "judge", "singer", "driver", "merchant", "neighbor", "uncle", "queen", "robot", "fox",
    "blackbird", "donkey", "student", "clerk", "pilot", "miller", "barber", "soldier", "nurse", "mayor",
    "thief",
)  # fmt: skip
ACTIONS = (
    "carried", "painted", "forgot", "borrowed", "sold", "counted", "hid", "repaired", "found", "watched",
    "dropped", "pushed", "chose", "washed", "measured", "brought", "kept", "shared", "collected",
    "threw away", "searched for", "talked about", "looked after", "gave back", "asked for",
)  # fmt: skip
QUANTIFIERS = (
    "a", "the", "two", "three", "five", "seven", "nine", "twelve", "twenty", "some", "many", "a dozen",
    "half of the", "all the", "forty six", "a hundred",
)  # fmt: skip
COLORS = (
    "silver", "yellow", "broken", "wooden", "heavy", "tiny", "purple", "rusty", "golden", "empty",
    "green", "frozen", "paper", "shining", "dusty", "round", "orange", "striped", "warm", "precious",
)  # fmt: skip
THINGS = (
    "lantern", "basket", "window", "letter", "kettle", "bridge", "violin", "pumpkin", "feather",
    "bicycle", "mirror", "blanket", "hammer", "teapot", "ladder", "whistle", "candle", "button", "barrel",
    "suitcase", "mushroom", "clock", "umbrella", "necklace", "engine", "sandwich", "map", "jacket",
    "cherry", "ship",
)  # fmt: skip
PLACES = (
    "across the river", "behind the church", "near the harbor", "under the table",
    "in the village square", "on top of the hill", "beside the railway", "from the market",
    "at the edge of the forest", "for the museum", "by the garden gate", "in a very small kitchen",
    "along the northern coast", "with both hands", "without asking why", "before the bell rang",
    "while the others slept", "just to be sure", "and then laughed",
)  # fmt: skip


def demo_sentences(count: int, seed: int) -> list[str]:
    """`count` English sentences of 10 to 19 words, all different; the same for the same seed."""
    draw = random.Random(seed)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[_sentence(draw)] = None
    return list(sentences)


def _sentence(draw: random.Random) -> str:
    opener, color, thing = draw.choice(OPENERS), draw.choice(COLORS), draw.choice(THINGS)
    amount = draw.choice(QUANTIFIERS)
    if amount == "a":
        amount = "an" if color[0] in "aeiou" else "a"
    elif amount != "the":
        thing = _plural(thing)
    actor = f"{draw.choice(QUALITIES)} {draw.choice(ACTORS)}"
    start = f"{opener}, the" if opener else "The"
    return f"{start} {actor} {draw.choice(ACTIONS)} {amount} {color} {thing} {draw.choice(PLACES)}."


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("sh", "ch")) else "s")
