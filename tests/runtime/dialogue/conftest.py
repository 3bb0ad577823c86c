"""Fixtures of conversations: one session, and what it saw."""

from pathlib import Path

import pytest
from stllm_edge.runtime import Options, Session, View, load_clip, load_scene

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)


@pytest.fixture(scope="module", params=[True, False], ids=["resident", "apart"])
def either(request: pytest.FixtureRequest, tiny_bundle: Path) -> Session:
    """A session that keeps its stages, and one that does not."""
    from dataclasses import replace

    return Session(tiny_bundle, replace(EXACT, resident=request.param))


@pytest.fixture
def view(session: Session, inputs) -> View:
    return session.look(load_scene(inputs.scene), load_clip(inputs.video), frames=2)
