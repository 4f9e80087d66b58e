"""Some of the crashes of `tests/crashes.py`, which runs them all."""

EVERY = 130


def test_runs_that_crash_while_writing_end_as_the_run_left_alone(script):
    status, output = script("tests/crashes.py", "--every", str(EVERY))
    assert status == 0 and "no difference" in output, output
