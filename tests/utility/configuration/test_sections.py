"""The nearest of the possible names."""

import pytest

from mynah.utility.configuration.sections import nearest

TASKS = ("speech_commands", "sv_voxceleb1", "voxceleb1_speaker", "example", "example_frames")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("voxceleb", "voxceleb1_speaker"),  # by its letters alone sv_voxceleb1 is nearer
        ("Speech", "speech_commands"),
        ("sv_voxceleb2", "sv_voxceleb1"),
        ("examples", "example"),
        ("exam", "example"),  # two begin with it: the one most like it
        ("s", None),
        ("", None),
    ],
)
def test_a_single_name_that_begins_with_what_was_given_goes_before_others_that_are_like_it(given, expected):
    assert nearest(given, TASKS) == expected
