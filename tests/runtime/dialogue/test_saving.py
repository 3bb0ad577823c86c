"""A conversation that was saved goes on elsewhere as if it had never ended."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stllm_edge.runtime import BadInput, Options, Session, StllmError

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
SHORT = {"max_new_tokens": 4}


def read(answer) -> list[int]:
    list(answer)
    return answer.token_ids


@pytest.fixture
def saved(session: Session, view, tmp_path: Path) -> tuple[Path, list[int], list[int]]:
    """A file after a first question, and the answers to it and to a second."""
    file = tmp_path / "saved"
    with session.converse(view) as talk:
        first = read(talk.ask("Where is the cup?", **SHORT))
        session.save(file)
        return file, first, read(talk.ask("And the red one?", **SHORT))


def test_it_goes_on_with_its_tokens_alone(tiny_bundle, saved) -> None:
    file, first, second = saved
    with Session.load(file, tiny_bundle, EXACT) as session:
        talk = session.conversation
        assert list(talk.turns[0].ids) == [token for token in first if token not in session.bundle.stop_ids]
        answer = talk.ask("And the red one?", **SHORT)
        assert read(answer) == second
        assert set(answer.meter.milliseconds) == {"load_llm", "prefill", "decode", "sampling", "detokenise"}
        assert answer.meter.reused["prefill"]["misses"] < 40
        # the features serve questions by themselves too
        assert read(session.answer(talk.view, "Where is the cup?", **SHORT)) == first
        with pytest.raises(BadInput, match="its frames were not saved"):
            list(talk.view.selection.clip.read([0]))


def test_a_closed_conversation_is_saved_without_keys_and_values(session, tiny_bundle, view, saved, tmp_path) -> None:
    talk = session.converse(view)
    read(talk.ask("Where is the cup?", **SHORT))
    talk.close()
    session.save(tmp_path / "small")
    assert (tmp_path / "small").stat().st_size < saved[0].stat().st_size
    with Session.load(tmp_path / "small", tiny_bundle, EXACT) as other:
        assert read(other.conversation.ask("And the red one?", **SHORT)) == saved[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (replace(EXACT, quant="Q8_0"), "was saved with another bundle"),
        (replace(EXACT, kv="f16"), r"was saved with another --kv \(f32\), this one is f16"),
    ],
)
def test_another_model_or_option_is_refused(tiny_bundle, saved, options: Options, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Session.load(saved[0], tiny_bundle, options)


def test_another_bundle_is_refused(bundle, saved) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["stop_ids"] = [7]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="was saved with another bundle"):
        Session.load(saved[0], bundle, EXACT)


def test_what_is_no_saved_session_is_refused(tiny_bundle, saved, tmp_path) -> None:
    file = saved[0]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    for path, words in ((tmp_path / "damaged", "is damaged"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(BadInput, match=words):
            Session.load(path, tiny_bundle, EXACT)


def test_what_cannot_be_saved_is_said(tiny_bundle, session, view, tmp_path) -> None:
    with pytest.raises(StllmError, match="there is nothing to save"):
        Session(tiny_bundle, EXACT).save(tmp_path / "x")
    session.converse(view)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be saved"):
        session.save(tmp_path / "file" / "x")
