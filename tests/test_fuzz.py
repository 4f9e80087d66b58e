"""Some of the inputs of `tests/fuzz.py`, which makes as many as are asked for."""

COUNT = 3


def test_no_loader_fails_on_damaged_files_but_by_saying_so(script):
    status, output = script("tests/fuzz.py", "--count", str(COUNT))
    assert status == 0 and "no fault" in output, f"the last input: {output[-3000:]}"
