"""What is read from a bundle: the manifest, whole or refused in one line, and files that are those it describes."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.runtime import BadBundle, Bundle, Options, Session
from stllm_edge.runtime.bundle.manifest import ENCODERS, documented
from stllm_edge.runtime.bundle.writer import BundleWriter
from stllm_edge.runtime.llm.embeddings import embedding_rows


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


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0])
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
    "too many frames": lambda m: m["defaults"].update(frames=2**40),
    "source of text": lambda m: m.update(source="checkpoint"),
    "no source": lambda m: m.pop("source"),
    "kernel maps of an unknown format": lambda m: m["encoders"]["fp32"]["points"]["portable"].update(maps="trees"),
    "an embedding of other sizes": lambda m: m["llm"]["F32"]["embedding"].update(rows=2**40),
    "parity without files": lambda m: m.update(parity={"fp32": {"rows": []}}),
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


# what no command reads, or what may be absent
# records of tensors are read, and refused, by `verify --deep` alone; a type that is null is one of older versions
HARMLESS = re.compile(r"tools.*|parity f32 rows.*|notes.*|.* maps|llm \w+ (tensors.*|type)")


def test_a_value_of_another_type_is_one_line_wherever_it_stands(edit_manifest, damaged, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def thin(manifest: dict[str, Any]) -> None:
        for kind, names in {"encoders": ["fp16"], "llm": ["Q8_0", "Q4_K_M"]}.items():
            for name in names:
                del manifest[kind][name]
        # one record stands for all
        records = manifest["llm"]["F32"]["tensors"]["tensors"]
        for name in list(records)[1:]:
            del records[name]
        kept = re.compile(r"onnx/\w+\.(data|onnx|cpu\.onnx)|llm/F32.*")
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if kept.fullmatch(name)}
        manifest["engines"] = {"orin": {"fp32": {"points": {"file": "a", "sidecar": "b"}}}}
        manifest["parity"] = {"f32": {"files": ["llm/F32.gguf"], "rows": [{"stage": "vision", "rel_rms": 0.0}]}}
        manifest |= {"notes": {"any": ["thing"]}, "tools": {"python": "3"}}

    folder = edit_manifest(thin)
    sound = json.loads((folder / "manifest.json").read_text())
    read_by_all(folder)
    opened, refused = set(), set()
    for path, manifest in damaged(sound):
        (folder / "manifest.json").write_text(json.dumps(manifest))
        where = " ".join(map(str, path))
        message = refusal(folder)
        assert "\n" not in message
        if message:
            refused.add(where)
        else:
            read_by_all(folder)
            opened.add(where)
    assert [where for where in opened if not HARMLESS.fullmatch(where)] == []
    assert len(refused) > 130


def refusal(folder: Path) -> str:
    """Why a bundle does not open; empty if it does."""
    try:
        Bundle(folder)
    except BadBundle as error:
        return str(error)
    return ""


def read_by_all(folder: Path) -> None:
    """All that is read from a manifest, short of running its graphs."""
    session = Session(folder, Options(threads=1))
    assert session.digest
    assert session.setup.plan(8, 1000, 16).peak() > 0
    assert not session.bundle.is_of("00")
    with BundleWriter.open(folder) as writer:
        writer.record_parity("f32", {"files": ["llm/F32.gguf"]})


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--scene", ".", "--video", ".", "--question", "?", "--bundle"],
        ["export", "verify", "--ckpt", "CKPT", "--bundle"],
        ["export", "gguf", "--ckpt", "CKPT", "--quant", "F16", "--out"],
        ["export", "tensorrt", "--check", "--bundle"],
    ],
    ids=["run", "verify", "export", "tensorrt"],
)
def test_commands_refuse_a_damaged_manifest_in_one_line(command, stllm, tiny_checkpoint, edit_manifest) -> None:
    folder = edit_manifest(lambda m: m["geometry"]["points"].update(channels=[3, None]))
    words = [str(tiny_checkpoint) if word == "CKPT" else word for word in command]
    result = stllm(*words, folder)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert "lacks or misstates 'geometry.points.channels[1]' (null, expected a whole number); export" in result.stderr


@pytest.mark.parametrize("section", [("geometry",), ("geometry", "llm"), ("defaults",)])
def test_an_unknown_key_where_all_keys_change_answers_is_of_a_newer_version(section, edit_manifest) -> None:
    def add(manifest: dict[str, Any]) -> None:
        for key in section:
            manifest = manifest[key]
        manifest["twist"] = 2

    with pytest.raises(BadBundle, match=f"holds '{'.'.join(section)}.twist', as a newer version of this program"):
        Bundle(edit_manifest(add))


def test_unknown_keys_elsewhere_are_kept(edit_manifest, add_llm) -> None:
    def add(manifest: dict[str, Any]) -> None:
        entries = manifest["encoders"]["fp32"]
        for entry in (manifest, entries, entries["aligner"]["tensorrt"], manifest["llm"]["F32"], manifest["source"]):
            entry["choices"] = {"attention": "fp32"}

    folder = edit_manifest(add)
    before = json.loads((folder / "manifest.json").read_text())
    assert Bundle(folder).graph("aligner", "fp32", "tensorrt").file == "onnx/aligner.tensorrt.onnx"
    with BundleWriter.open(folder) as writer:
        writer.record_parity("f32", {"files": []})
    assert json.loads((folder / "manifest.json").read_text()) == {**before, "parity": {"f32": {"files": []}}}


def test_the_name_of_a_part_that_replaced_another_leads_to_its_documented_one() -> None:
    assert documented("engines/orin/0123456789ab/vision.engine") == "engines/orin/vision.engine"
    for name in ("onnx/vision.onnx", "engines/rtx-ampere/vision.engine", "manifest.json"):
        assert documented(name) == name


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


def test_a_bundle_s_digest_is_that_of_what_answers(written, add_llm) -> None:
    def digest() -> str:
        bundle = Bundle(written)
        return bundle.digest([bundle.llm("F32").file])

    first = digest()
    with BundleWriter.open(written) as writer:
        add_llm(writer, "Q8_0")
        writer.record_parity("llm", {"files": []})
    assert digest() == first
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other weights")
    other, name = digest(), Bundle(written).llm("F32").file
    assert other != first
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32", b"other weights")
    assert Bundle(written).llm("F32").file != name
    assert digest() == other
    with BundleWriter.open(written, force=True) as writer:
        add_llm(writer, "F32")
    assert digest() == first
    manifest = json.loads((written / "manifest.json").read_text())
    manifest["stop_ids"].reverse()
    (written / "manifest.json").write_text(json.dumps(manifest))
    assert digest() != first
