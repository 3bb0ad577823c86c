"""What is written to a bundle: the whole of it, or nothing."""

import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.runtime import BadBundle, BadInput, Bundle
from stllm_edge.runtime.bundle import digests
from stllm_edge.runtime.bundle.writer import LOCK, BundleWriter, record_comparisons


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


def test_a_failed_first_write_removes_what_it_wrote_and_nothing_else(tmp_path, add_llm) -> None:
    folder = tmp_path / "new" / "bundle"

    def write() -> None:
        with BundleWriter.open(folder) as writer:
            add_llm(writer, "F32")
            (folder / "llm").mkdir()
            (folder / "llm" / "notes.txt").write_bytes(b"precious")
            (folder / "photo.jpg").write_bytes(b"precious")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadBundle, match="No space left on device"):
        write()
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"new/bundle/llm/notes.txt", "new/bundle/photo.jpg"}


def test_a_file_of_the_user_is_not_written_over(written, add_llm) -> None:
    (written / "llm" / "Q8_0.gguf").write_bytes(b"precious")
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", b"fewer")
        assert writer.summary() == f"{written / writer.manifest['llm']['Q8_0']['file']}  0.0 MB"
    bundle = Bundle(written)
    assert bundle.file(bundle.llm("Q8_0").file).read_bytes() == b"fewer"
    assert content(written)["llm/Q8_0.gguf"] == b"precious"


def test_names_are_the_documented_ones_wherever_these_are_free(written, add_llm) -> None:
    def replace(weights: bytes) -> str:
        with BundleWriter.open(written, force=True) as writer:
            add_llm(writer, "F32", weights)
        bundle = Bundle(written)
        name = bundle.llm("F32").file
        bundle.check([name], fresh=True)
        assert bundle.file(name).read_bytes() == weights
        assert set(content(written)) == {"manifest.json", name}
        return name

    assert replace(b"weights") == "llm/F32.gguf"
    (written / "llm" / "F32.gguf").write_bytes(b"damaged")
    assert replace(b"weights") == "llm/F32.gguf"
    other = replace(b"other")
    assert other.startswith("llm/")
    assert other.endswith("/F32.gguf")
    assert replace(b"other") == "llm/F32.gguf"
    assert replace(b"weights") != other


def test_files_of_a_part_stay_together_and_its_entry_follows(written) -> None:
    def add(graph: bytes) -> dict[str, Any]:
        entry = {"file": "engines/orin/a.engine", "sidecar": "engines/orin/a.json", "note": ["engines/orin"]}
        with BundleWriter.open(written, force=True) as writer:
            (writer.staging / "engines/orin").mkdir(parents=True)
            (writer.staging / "engines/orin/a.engine").write_bytes(graph)
            (writer.staging / "engines/orin/a.json").write_bytes(b"{}")
            held = {**writer.manifest.get("engines", {}).get("orin", {}), "fp32": {"points": entry}}
            writer.add("engines", "orin", held, ["engines/orin/a.engine", "engines/orin/a.json"])
        bundle = Bundle(written)
        bundle.check(list(bundle.manifest["files"]), fresh=True)
        assert set(content(written)) == {"manifest.json", *bundle.manifest["files"]}
        found: dict[str, Any] = bundle.engines["orin"]["fp32"]["points"]
        return found

    first, second = add(b"old"), add(b"new")
    assert first == {"file": "engines/orin/a.engine", "sidecar": "engines/orin/a.json", "note": ["engines/orin"]}
    assert second["note"] == first["note"]
    assert Path(second["file"]).parent == Path(second["sidecar"]).parent != Path(first["file"]).parent


Write = Callable[[Path], None]


@pytest.fixture
def replace_and_add(add_llm) -> Write:
    """Replaces a part and adds another, while the user leaves a note in the folder."""

    def write(folder: Path) -> None:
        with BundleWriter.open(folder, force=True) as writer:
            add_llm(writer, "F32", b"other weights")
            add_llm(writer, "Q8_0", b"fewer")

    return write


def interrupted(write: Write, folder: Path, step: int, strike: Callable[[], None]) -> bool:
    """Write in a process of its own in which a change of the disk is struck; whether there were so many changes."""
    child = os.fork()
    if child == 0:
        changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
        left = step

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            opens = event == "open" and str(folder) in str(arguments[0]) and arguments[1] != "r"
            if event in changes or opens:
                left -= 1
                if left == 0:
                    strike()

        sys.addaudithook(watch)
        try:
            write(folder)
        except BaseException:  # what is left on the disk counts
            os._exit(1)
        os._exit(0 if left <= 0 else 2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 2


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def states(folder: Path) -> dict[str, bytes]:
    """What the language models of a bundle are, each file held against the manifest; none where there is no bundle."""
    if not (folder / "manifest.json").exists():
        return {}
    bundle = Bundle(folder)
    bundle.check(list(bundle.manifest["files"]), fresh=True)
    return {quant: bundle.file(bundle.llm(quant).file).read_bytes() for quant in bundle.quants}


OLD, NEW = {"F32": b"weights"}, {"F32": b"other weights", "Q8_0": b"fewer"}


@pytest.mark.parametrize("strike", [kill, fill_the_disk])
@pytest.mark.parametrize("first", [False, True], ids=["replacing", "first"])
def test_at_every_step_the_bundle_is_the_old_one_or_the_new(
    first: bool, strike: Callable[[], None], replace_and_add: Write, add_llm, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here
    found: list[dict[str, bytes]] = []
    for step in range(1, 200):
        folder = tmp_path / str(step)
        if not first:
            with BundleWriter.open(folder) as writer:
                add_llm(writer, "F32")
            (folder / "llm" / "notes.txt").write_bytes(b"precious")
        if not interrupted(replace_and_add, folder, step, strike):
            break
        found.append(states(folder))
        assert found[-1] in ({} if first else OLD, NEW)
        # the next writer removes what is left over
        with BundleWriter.open(folder) as writer:
            add_llm(writer, "Q4_0")
        assert states(folder) == {**found[-1], "Q4_0": b"weights"}
        notes = set() if first else {"llm/notes.txt"}
        assert set(content(folder)) == {"manifest.json", *Bundle(folder).manifest["files"], *notes}
    assert step > 20
    assert ({} if first else OLD) in found
    assert found[-1] == NEW


def test_a_list_of_changes_leads_nowhere_else(written, tmp_path) -> None:
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"")
    (written / "link").symlink_to(tmp_path / "elsewhere")
    staging = written / ".staging-dead"
    for listed in (["../precious", str(tmp_path / "precious"), "link/precious", 5, "llm/F32.gguf"], {"a": 1}, "x"):
        staging.mkdir()
        (staging / "changes.json").write_text(json.dumps(listed))
        with BundleWriter.open(written):
            pass
        assert not staging.exists()
    assert (tmp_path / "precious").exists()
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert states(written) == OLD


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


def test_a_checkpoint_is_told_by_its_digest_whatever_its_folder_is_called(written, description) -> None:
    renamed = {"checkpoint": "renamed", "sha256": description["source"]["sha256"]}
    with BundleWriter.open(written) as writer:
        writer.describe({**description, "source": renamed})
    assert Bundle(written).manifest["source"] == description["source"]
    with (
        pytest.raises(BadBundle, match="was made with source 00, now asked for 01"),
        BundleWriter.open(written) as writer,
    ):
        writer.describe({**description, "source": {**renamed, "sha256": "01"}})


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


RECORD = {"F32": {"files": ["llm/F32.gguf"], "rows": []}}


def test_comparisons_are_recorded_where_that_can_be_done(written) -> None:
    record_comparisons(Bundle(written), RECORD)
    assert Bundle(written).manifest["parity"] == RECORD


def test_a_comparison_of_files_that_were_replaced_meanwhile_is_not_recorded(written, add_llm, caplog) -> None:
    bundle = Bundle(written)
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other")
    record_comparisons(bundle, RECORD)
    (record,) = caplog.records
    assert record.getMessage() == f"{written}/llm/F32.gguf: was replaced meanwhile; the comparison is not recorded"
    assert Bundle(written).manifest["parity"] == {}


@pytest.fixture
def read_only(add_llm) -> Iterator[Path]:
    """A bundle that this process cannot write to, even if it is root's."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        with BundleWriter.open(bundle) as writer:
            add_llm(writer, "F32")
        (bundle / LOCK).unlink()
        for path in (Path(folder), bundle, bundle / "llm"):
            path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield bundle
        finally:
            os.seteuid(user)
            for path in (Path(folder), bundle, bundle / "llm"):
                path.chmod(0o755)


def test_a_read_only_bundle_is_read_and_nothing_recorded(read_only: Path, caplog) -> None:
    Bundle(read_only).check(["llm/F32.gguf"])
    record_comparisons(Bundle(read_only), RECORD)
    (record,) = caplog.records
    assert record.getMessage() == f"{read_only}/{LOCK}: Permission denied; the comparison is not recorded"
    assert set(content(read_only)) == {"manifest.json", "llm/F32.gguf"}


def test_the_summary_lists_new_files_with_sizes(written, add_llm) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", bytes(2_500_000))
        assert writer.summary() == f"{written}/llm/Q8_0.gguf  2.5 MB"


def test_what_was_just_written_is_not_read_again(written, add_llm, monkeypatch) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", b"fewer")
    monkeypatch.setattr(digests, "sha256", lambda path: pytest.fail(f"{path} is read"))
    Bundle(written).check(["llm/F32.gguf", "llm/Q8_0.gguf"])
