from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gguf(tiny_bundle: Path) -> Path:
    """The tiny language model in float32: 1,024 tokens, width 256."""
    return tiny_bundle / "llm" / "F32.gguf"
