import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.checkpoints import TINY
from stllm_edge.runtime import BadBundle, BadInput, Bundle
from stllm_edge.runtime.bundle.digests import file_digest, joint_digest
from stllm_edge.runtime.bundle.files import atomic_path
from stllm_edge.runtime.bundle.manifest import ENCODERS, LOCK, BundleWriter
from stllm_edge.runtime.llm.embeddings import embedding_rows

DESCRIPTION: dict[str, Any] = {
    "source": {"checkpoint": "ckpt", "sha256": "00"},
    "geometry": TINY.to_json(),
    "defaults": {"voxel_size": 0.05, "frames": 8, "time_instruction": False},
    "stop_ids": [1002, 1000],
}
EMBEDDING = {"offset": 0, "type": "F32", "rows": 1024, "columns": 256}


def add_llm(writer: BundleWriter, quant: str, content: bytes = b"weights") -> None:
    writer.describe(DESCRIPTION)
    writer.require_absent("llm", quant)
    file = writer.staging / "llm" / f"{quant}.gguf"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    writer.add("llm", quant, {"file": f"llm/{quant}.gguf", "embedding": EMBEDDING}, [f"llm/{quant}.gguf"])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A bundle of one file."""
    with BundleWriter.open(tmp_path / "written") as writer:
        add_llm(writer, "F32")
    return tmp_path / "written"


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# writing


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


def test_parts_are_added_to_a_bundle(written) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", b"fewer")
    assert Bundle(written).quants == ["F32", "Q8_0"]
    Bundle(written).check(["llm/F32.gguf", "llm/Q8_0.gguf"])


def test_a_part_is_replaced_only_by_force(written) -> None:
    before = content(written)
    with pytest.raises(BadInput, match="already holds llm F32; --force replaces it"), BundleWriter.open(written) as w:
        add_llm(w, "F32", b"other")
    assert content(written) == before
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other")
    assert content(written)["llm/F32.gguf"] == b"other"
    Bundle(written).check(["llm/F32.gguf"])


def fail(path: Path) -> None:
    with BundleWriter.open(path) as writer:
        add_llm(writer, "Q4_K_M")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_bundle_as_it_was(written) -> None:
    before = content(written)
    with pytest.raises(KeyboardInterrupt):
        fail(written)
    assert content(written) == before


def test_an_interrupted_first_write_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "new" / "bundle")
    assert not (tmp_path / "new" / "bundle").exists()


def test_what_a_killed_write_left_is_removed(written) -> None:
    (written / ".staging-dead" / "llm").mkdir(parents=True)
    (written / ".staging-dead" / "llm" / "Q8_0.gguf").write_bytes(b"half")
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
    assert set(content(written)) == {"manifest.json", "llm/F32.gguf", "llm/Q8_0.gguf"}


@pytest.mark.parametrize("key", ["geometry", "defaults", "source", "stop_ids"])
def test_parts_of_different_models_do_not_mix(written, key: str) -> None:
    before = content(written)
    with (
        pytest.raises(BadBundle, match=f"was made with {key} .* now asked for .*; write to another --out"),
        BundleWriter.open(written) as writer,
    ):
        writer.describe({**DESCRIPTION, key: ["something else"]})
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


def test_only_one_process_writes(written) -> None:
    with BundleWriter.open(written) as writer:
        with pytest.raises(BadBundle, match="another process is writing"), BundleWriter.open(written):
            pass
        add_llm(writer, "Q8_0")
    assert Bundle(written).quants == ["F32", "Q8_0"]


def test_records_of_comparisons_last_until_a_file_of_theirs_changes(written) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
        writer.record_parity("early", {"files": []})
    with BundleWriter.open(written) as writer:
        writer.record_parity("f32", {"files": ["llm/F32.gguf"]})
        writer.record_parity("q8", {"files": ["llm/Q8_0.gguf"]})
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"new")
    assert set(Bundle(written).manifest["parity"]) == {"early", "q8"}


def test_the_summary_lists_new_files_with_sizes(written) -> None:
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0", bytes(2_500_000))
        assert writer.summary() == f"{written}/llm/Q8_0.gguf  2.5 MB"


# reading


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_manifest_names_the_command(tmp_path, exists: bool) -> None:
    folder = tmp_path / "bundle"
    if exists:
        folder.mkdir()
    with pytest.raises(BadBundle, match=r"no manifest\.json; make a bundle with stllm-export all"):
        Bundle(folder)


def test_a_file_is_no_bundle(written) -> None:
    with pytest.raises(BadBundle, match=r"no manifest\.json"):
        Bundle(written / "llm" / "F32.gguf")


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b"\xff\xfe", b"[1, 2]", b"5", b"null", b"{}"])
def test_a_damaged_manifest(written, text: bytes) -> None:
    (written / "manifest.json").write_bytes(text)
    with pytest.raises(BadBundle, match=r"manifest\.json: "):
        Bundle(written)


def test_a_manifest_that_is_a_folder(written) -> None:
    (written / "manifest.json").unlink()
    (written / "manifest.json").mkdir()
    with pytest.raises(BadBundle, match=r"manifest\.json"):
        Bundle(written)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(written, schema: object) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    (written / "manifest.json").write_text(json.dumps({**manifest, "schema": schema}))
    with pytest.raises(BadBundle, match=f"schema {schema}, this program reads schema 1"):
        Bundle(written)


@pytest.mark.parametrize("key", ["geometry", "defaults", "stop_ids", "encoders", "llm", "files"])
def test_missing_keys_are_named(edit_manifest, key: str) -> None:
    with pytest.raises(BadBundle, match=f"lacks or misstates '{key}'"):
        Bundle(edit_manifest(lambda manifest: manifest.pop(key)))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "geometry part": lambda m: m["geometry"].pop("points"),
    "geometry size": lambda m: m["geometry"]["llm"].pop("width"),
    "geometry of text": lambda m: m.update(geometry="large"),
    "unknown default": lambda m: m["defaults"].update(colour="red"),
    "defaults of null": lambda m: m.update(defaults=None),
    "stop ids of one number": lambda m: m.update(stop_ids=5),
    "stop ids of text": lambda m: m.update(stop_ids=["a"]),
    "grid of text": lambda m: m["geometry"]["vision"].update(grid="x"),
    "no heads": lambda m: m["geometry"]["llm"].update(heads=0),
    "negative layers": lambda m: m["geometry"]["llm"].update(layers=-3),
    "embedding with rows of text": lambda m: m["llm"]["F32"]["embedding"].update(rows="x"),
    "embedding before the file": lambda m: m["llm"]["F32"]["embedding"].update(offset=-1),
    "encoders in a list": lambda m: m.update(encoders=[]),
    "language models in a list": lambda m: m.update(llm=["F32"]),
    "graph without file": lambda m: m["encoders"]["fp32"]["vision"]["portable"].pop("file"),
    "embedding without offset": lambda m: m["llm"]["F32"]["embedding"].pop("offset"),
    "files in a list": lambda m: m.update(files=[]),
    "file entry of text": lambda m: m["files"].update({"llm/F32.gguf": "here"}),
    "file without size": lambda m: m["files"]["llm/F32.gguf"].pop("bytes"),
    "file without digest": lambda m: m["files"]["llm/F32.gguf"].pop("sha256"),
    "size of text": lambda m: m["files"]["llm/F32.gguf"].update(bytes="many"),
    "no voxel size": lambda m: m["defaults"].update(voxel_size=0),
    "voxel size of text": lambda m: m["defaults"].update(voxel_size="small"),
    "no frames": lambda m: m["defaults"].update(frames=0),
    "encoder missing": lambda m: m["encoders"]["fp32"].pop("points"),
    "engines in a list": lambda m: m.update(engines=[]),
    "engines of nothing": lambda m: m.update(engines={"orin": None}),
    "engines of no precision": lambda m: m.update(engines={"orin": {"fp32": None}}),
    "engine without sidecar": lambda m: m.update(engines={"orin": {"fp32": {"vision": {"file": "vision.engine"}}}}),
    "engine file of a number": lambda m: m.update(engines={"orin": {"fp32": {"vision": {"file": 1, "sidecar": "s"}}}}),
    "portable graph missing": lambda m: m["encoders"]["fp32"]["points"].pop("portable"),
}


def test_a_manifest_that_is_nested_too_deep(edit_manifest) -> None:
    folder = edit_manifest(lambda manifest: None)
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(BadBundle, match=r"manifest\.json: damaged"):
        Bundle(folder)


def test_an_embedding_beyond_the_file(edit_manifest) -> None:
    bundle = Bundle(edit_manifest(lambda m: m["llm"]["F32"]["embedding"].update(offset=10**9)))
    llm = bundle.llm("F32")
    with pytest.raises(BadBundle, match="ends before the embedding matrix that the manifest describes"):
        embedding_rows(bundle.file(llm.file), llm.embedding, [1])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_manifests_that_lack_or_misstate_something(edit_manifest, change: Callable[[dict[str, Any]], object]) -> None:
    folder = edit_manifest(change)
    with pytest.raises(BadBundle):
        open_and_check(folder)


def open_and_check(folder: Path) -> None:
    bundle = Bundle(folder)
    graphs = [bundle.graph(name, "fp32") for name in ENCODERS]
    bundle.check([*(graph.file for graph in graphs), bundle.llm("F32").file])


def test_unknown_precisions_and_quants_list_the_known(tiny_bundle) -> None:
    bundle = Bundle(tiny_bundle)
    with pytest.raises(BadBundle, match=r"--precision int8: .* it holds fp32, fp16"):
        bundle.graph("vision", "int8")
    with pytest.raises(BadBundle, match=r"--quant Q2_K: .* it holds F32, Q8_0, Q4_K_M"):
        bundle.llm("Q2_K")


def test_a_bundle_without_encoders_says_so(written) -> None:
    with pytest.raises(BadBundle, match="it holds none"):
        Bundle(written).graph("vision", "fp32")


def test_a_provider_takes_its_own_graph_or_the_portable_one(edit_manifest) -> None:
    def add_variant(manifest: dict[str, Any]) -> None:
        graphs = manifest["encoders"]["fp32"]["points"]
        graphs["cuda"] = {**graphs["portable"], "file": "onnx/points.cuda.onnx"}

    bundle = Bundle(edit_manifest(add_variant))
    assert bundle.graph("points", "fp32", "cuda").file == "onnx/points.cuda.onnx"
    assert bundle.graph("points", "fp32", "cpu").file == "onnx/points.onnx"
    assert bundle.graph("vision", "fp32", "cuda").file == "onnx/vision.onnx"


# checking


def test_a_missing_file(written) -> None:
    (written / "llm" / "F32.gguf").unlink()
    with pytest.raises(BadBundle, match=r"F32\.gguf is missing"):
        Bundle(written).check(["llm/F32.gguf"])


def test_a_file_of_another_size(written) -> None:
    (written / "llm" / "F32.gguf").write_bytes(b"weight")
    with pytest.raises(BadBundle, match="has 6 bytes, the manifest says 7"):
        Bundle(written).check(["llm/F32.gguf"])


def test_a_file_of_other_content(written) -> None:
    (written / "llm" / "F32.gguf").write_bytes(b"WEIGHTS")
    with pytest.raises(BadBundle, match="SHA-256 differs"):
        Bundle(written).check(["llm/F32.gguf"])


def test_a_change_behind_an_old_date_is_found(written) -> None:
    file = written / "llm" / "F32.gguf"
    Bundle(written).check(["llm/F32.gguf"])
    status = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BadBundle, match="SHA-256 differs"):
        Bundle(written).check(["llm/F32.gguf"])


@pytest.mark.parametrize("name", ["llm/none.gguf", "../written/llm/F32.gguf", "/etc/hostname"])
def test_names_that_the_manifest_does_not_hold(written, name: str) -> None:
    with pytest.raises(BadBundle, match="no entry for"):
        Bundle(written).check([name])


@pytest.mark.parametrize("name", ["../outside.gguf", "llm/../../outside.gguf", "/outside.gguf"])
def test_names_that_lead_out_of_the_bundle_are_refused(written, name: str) -> None:
    outside = written / name
    if name.startswith(".."):
        outside.write_bytes(b"weights")
    manifest = json.loads((written / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["llm/F32.gguf"]
    manifest["llm"]["F32"]["file"] = name
    (written / "manifest.json").write_text(json.dumps(manifest))
    bundle = Bundle(written)
    with pytest.raises(BadBundle, match=r"outside\.gguf"):
        bundle.check([bundle.llm("F32").file])


def test_a_bundle_may_be_moved(written, tmp_path) -> None:
    moved = Path(shutil.move(written, tmp_path / "elsewhere"))
    Bundle(moved).check(["llm/F32.gguf"])


# digests and atomic files


def test_a_bundle_s_digest_is_that_of_what_answers(written) -> None:
    def digest() -> str:
        return Bundle(written).digest(["llm/F32.gguf"])

    first = digest()
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
        writer.record_parity("llm", {"files": []})
    assert digest() == first
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other weights")
    assert digest() != first
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32")
    assert digest() == first
    manifest = json.loads((written / "manifest.json").read_text())
    manifest["stop_ids"].reverse()
    (written / "manifest.json").write_text(json.dumps(manifest))
    assert digest() != first


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digest_is_sha_256(tmp_path, cache) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(file) == file_digest(file) == file_digest(file, fresh=True) == expected


def test_an_unchanged_file_is_remembered_and_fresh_reads_it_again(tmp_path, cache) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    true = file_digest(file)
    memory = cache / "digests.json"
    memory.write_text(memory.read_text().replace(true, "f" * 64))
    assert file_digest(file) == "f" * 64
    assert file_digest(file, fresh=True) == true
    assert file_digest(file) == true


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null"])
def test_a_damaged_memory_is_forgotten(tmp_path, cache, text: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    true = file_digest(file)
    (cache / "digests.json").write_text(text)
    assert file_digest(file) == true


def test_without_a_cache_folder_files_are_still_hashed(tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    monkeypatch.setenv("STLLM_CACHE", str(file / "cannot be a folder"))
    assert file_digest(file).startswith("ba7816bf")


def test_joint_digest_depends_on_names_and_digests_not_on_order() -> None:
    one = joint_digest({"a": "1", "b": "2"})
    assert one == joint_digest({"b": "2", "a": "1"})
    assert len({one, joint_digest({"a": "2", "b": "1"}), joint_digest({"a": "1"}), joint_digest({})}) == 4


def test_an_atomic_file_appears_whole(tmp_path) -> None:
    target = tmp_path / "new" / "file"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def fail_to_write(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_an_atomic_file_is_kept_on_errors(tmp_path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail_to_write(target)
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
