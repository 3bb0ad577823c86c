from pathlib import Path

import pytest
from stllm_edge.runtime.llm.pace import memory
from stllm_edge.runtime.llm.pace.memory import fingerprint, recall, remember


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_remembered_is_recalled() -> None:
    assert recall("key") is None
    remember("key", {"packed": [[1.0, 2.0]]})
    remember("other", {})
    assert recall("key") == {"packed": [[1.0, 2.0]]}


def test_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_REMEMBERED", 2)
    for key in "abcd":
        remember(key, {})
    assert [recall(key) for key in "abcd"] == [None, {}, {}, {}]


def test_fingerprints_tell_models_and_measurements_apart() -> None:
    keys = {fingerprint(model, *measured) for model in ("a", "b") for measured in ((1,), (2,), ([1, None],))}
    assert len(keys) == 6
    assert fingerprint("a", 1) == fingerprint("a", 1)
