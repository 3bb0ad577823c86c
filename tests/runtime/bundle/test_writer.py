"""What is written to a bundle: the whole of it, or nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.runtime import BadBundle, BadInput, Bundle
from stllm_edge.runtime.bundle import digests
from stllm_edge.runtime.bundle.writer import LOCK, BundleWriter


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_what_is_written_is_read(written) -> None:
    bundle = Bundle(written)
    assert bundle.geometry == TINY
    assert (bundle.defaults.voxel_size, bundle.defaults.frames, bundle.defaults.time_instruction) == (0.05, 8, False)
    assert bundle.stop_ids == (1002, 1000)
    assert (bundle.quants, bundle.precisions) == (["F32"], [])
    assert bundle.file(bundle.llm("F32").file).read_bytes() == b"weights"
    assert bundle.size("llm/F32.gguf") == 7
    bundle.check(["llm/F32.gguf"])
    assert set(content(written)) == {"manifest.json", "llm/F32.gguf"}


def test_parts_are_added_to_a_bundle(written, add_llm) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", b"fewer")
    assert Bundle(written).quants == ["F32", "Q8_0"]
    Bundle(written).check(["llm/F32.gguf", "llm/Q8_0.gguf"])


def test_a_part_is_replaced_only_by_force(written, add_llm) -> None:
    before = content(written)
    with pytest.raises(BadInput, match="already holds llm F32; --force replaces it"), BundleWriter.open(written) as w:
        add_llm(w, "F32", b"other")
    assert content(written) == before
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other")
    bundle = Bundle(written)
    file = bundle.llm("F32").file
    assert bundle.file(file).read_bytes() == b"other"
    bundle.check([file])
    assert set(content(written)) == {"manifest.json", file}


def fail(path: Path, add_llm: Callable[..., None]) -> None:
    with BundleWriter.open(path) as writer:
        add_llm(writer, "Q4_K_M")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_bundle_as_it_was(written, add_llm) -> None:
    before = content(written)
    with pytest.raises(KeyboardInterrupt):
        fail(written, add_llm)
    assert content(written) == before


def test_an_interrupted_first_write_leaves_nothing(tmp_path, add_llm) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "new" / "bundle", add_llm)
    assert not (tmp_path / "new" / "bundle").exists()


def test_what_a_killed_write_left_is_removed(written, add_llm) -> None:
    (written / ".staging-dead" / "llm").mkdir(parents=True)
    (written / ".staging-dead" / "llm" / "Q8_0.gguf").write_bytes(b"half")
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
    assert set(content(written)) == {"manifest.json", "llm/F32.gguf", "llm/Q8_0.gguf"}


@pytest.mark.parametrize("key", ["geometry", "defaults", "source", "stop_ids"])
def test_parts_of_different_models_do_not_mix(written, key: str, description) -> None:
    before = content(written)
    with (
        pytest.raises(BadBundle, match=f"was made with {key} .* now asked for .*; write to another --out"),
        BundleWriter.open(written) as writer,
    ):
        writer.describe({**description, key: ["something else"]})
    assert content(written) == before


def test_folders_with_other_things_are_left_alone(tmp_path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"precious")
    with pytest.raises(BadBundle, match=r"photos\.zip.*choose an empty folder"), BundleWriter.open(tmp_path):
        pass
    assert content(tmp_path) == {"photos.zip": b"precious"}


def test_what_the_system_refuses_is_one_line(written) -> None:
    (written / LOCK).unlink(missing_ok=True)
    (written / LOCK).mkdir()
    with pytest.raises(BadBundle, match=rf"{LOCK}: Is a directory"), BundleWriter.open(written):
        pass


def test_only_one_process_writes(written, add_llm) -> None:
    with BundleWriter.open(written) as writer:
        with pytest.raises(BadBundle, match="another process is writing"), BundleWriter.open(written):
            pass
        add_llm(writer, "Q8_0")
    assert Bundle(written).quants == ["F32", "Q8_0"]


def test_records_of_comparisons_last_until_a_file_of_theirs_changes(written, add_llm) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
        writer.record_parity("early", {"files": []})
    with BundleWriter.open(written) as writer:
        writer.record_parity("f32", {"files": ["llm/F32.gguf"]})
        writer.record_parity("q8", {"files": ["llm/Q8_0.gguf"]})
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"new")
    assert set(Bundle(written).manifest["parity"]) == {"early", "q8"}


def test_the_summary_lists_new_files_with_sizes(written, add_llm) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", bytes(2_500_000))
        assert writer.summary() == f"{written}/llm/Q8_0.gguf  2.5 MB"


def test_what_was_just_written_is_not_read_again(written, add_llm, monkeypatch) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", b"fewer")
    monkeypatch.setattr(digests, "sha256", lambda path: pytest.fail(f"{path} is read"))
    Bundle(written).check(["llm/F32.gguf", "llm/Q8_0.gguf"])
