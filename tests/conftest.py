"""Fixtures that every test may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def shared_data() -> Path:
    """The folder of real speech beside the checkout; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Each test has a cache folder of its own, so that none depends on what the user's holds."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MYNAH_CACHE", str(folder))
    return folder
