"""A recording in each format in turn."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ..written import FORMATS, NAMES, Recording


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, record: Callable[..., Recording]) -> tuple[Recording, Path, bool]:
    """The recording in each format in turn, what --cameras is given, and whether it holds intrinsics."""
    write, names, lens = FORMATS[request.param]
    made = record(*NAMES[names])
    return made, write(made), lens


@pytest.fixture(scope="session")
def reference_case() -> Callable[[str], Path]:
    """A folder of inputs as users have them; the test is skipped where they are not there."""

    def find(name: str) -> Path:
        folder = Path(__file__).resolve().parents[5] / "shared" / "cases" / name
        if not folder.is_dir():
            pytest.skip(f"needs cases that this repository does not hold: {folder} is absent")
        return folder

    return find
