"""Every damage of a GGUF file is found by reading it back, and named."""

import json
from pathlib import Path
from typing import Any

import pytest


def deep(stllm: Any, checkpoint: Path, bundle: Path) -> Any:
    options = ["--ckpt", checkpoint, "--bundle", bundle, "--deep", "--quant", "Q4_K_M", "--quiet"]
    return stllm("export", "verify", *options)


def test_a_whole_file_has_no_damage(stllm: Any, tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    found = deep(stllm, tiny_checkpoint, tiny_bundle)
    assert found.exit_code == 0, found.output
    assert "as recorded; " in found.stdout
    assert "attn_q 2" in found.stdout


@pytest.mark.parametrize("where", ["bit", "zero", "trailing", "cut", "head", "padding"])
def test_damage_is_found_and_named(where: str, stllm: Any, tiny_checkpoint: Path, bundle_copy: Path) -> None:
    file = bundle_copy / "llm/Q4_K_M.gguf"
    records = json.loads((bundle_copy / "manifest.json").read_text())["llm"]["Q4_K_M"]["tensors"]
    name = "blk.1.ffn_up.weight"
    record = records["tensors"][name]
    data = bytearray(file.read_bytes())
    begin, said = record["offset"], f"{name}: its SHA-256 differs"
    if where == "bit":
        data[begin + 1234] ^= 8
    elif where == "zero":
        data[begin : begin + record["bytes"]] = bytes(record["bytes"])
    elif where == "trailing":
        data += b"x"
        said = "Q4_K_M.gguf: 1 bytes follow the last tensor"
    elif where == "cut":
        del data[-100:]
        said = "the file ends"
    else:
        end = records["head"]["bytes"]
        data[end - 1 if where == "padding" else 40] ^= 1
        said = "head: sizes, constants or tokens differ"
    file.write_bytes(data)
    found = deep(stllm, tiny_checkpoint, bundle_copy)
    assert found.exit_code == 1
    assert said in found.stdout


def test_a_tensor_that_its_record_describes_but_the_checkpoint_does_not_is_found(
    stllm: Any, tiny_checkpoint: Path, bundle_copy: Path
) -> None:
    """Digests that were made after the damage hide it from all but the checkpoint."""
    import hashlib

    file, manifest = bundle_copy / "llm/Q4_K_M.gguf", bundle_copy / "manifest.json"
    content = json.loads(manifest.read_text())
    record = content["llm"]["Q4_K_M"]["tensors"]["tensors"]["blk.0.attn_q.weight"]
    data = bytearray(file.read_bytes())
    data[record["offset"] : record["offset"] + record["bytes"]] = bytes(record["bytes"])
    file.write_bytes(data)
    record["sha256"] = hashlib.sha256(bytes(record["bytes"])).hexdigest()
    manifest.write_text(json.dumps(content))
    found = deep(stllm, tiny_checkpoint, bundle_copy)
    assert found.exit_code == 1
    assert "blk.0.attn_q.weight: 0.0 dB from the checkpoint" in found.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda records: records["tensors"]["blk.0.attn_q.weight"].update(rms="much"), "blk.0.attn_q.weight"),
        (lambda records: records.update(head=3), "head"),
        (lambda records: records.pop("tensors"), "tensors"),
    ],
)
def test_records_of_another_form_are_one_line(
    change: Any, said: str, stllm: Any, tiny_checkpoint: Path, bundle_copy: Path
) -> None:
    manifest = bundle_copy / "manifest.json"
    content = json.loads(manifest.read_text())
    change(content["llm"]["Q4_K_M"]["tensors"])
    manifest.write_text(json.dumps(content))
    found = deep(stllm, tiny_checkpoint, bundle_copy)
    assert found.exit_code == 2
    assert said in found.stderr
    assert found.stderr.count("\n") == 1
