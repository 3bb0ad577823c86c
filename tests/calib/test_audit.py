"""What stays float32 in a bundle's encoders, and why."""

import json
from pathlib import Path
from typing import Any

import pytest


def audited(stllm: Any, bundle: Path, precision: str, provider: str = "cpu") -> list[dict[str, Any]]:
    options = ["--bundle", bundle, "--precision", precision, "--provider", provider, "--json"]
    result = stllm("calib", "audit", *options)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


@pytest.mark.parametrize("provider", ["cpu", "tensorrt", "portable"])
def test_each_product_that_stays_has_its_reason(provider: str, int8_bundle: Path, stllm: Any) -> None:
    found = audited(stllm, int8_bundle, "vision=int8,aligner=int8", provider)
    reasons = {kept["weight"]: kept["reason"] for kept in found if kept["weight"]}
    assert reasons["project_out.weight"] == reasons["to_language.weight"] == "last Linear"
    assert reasons["point_rays.weight"] == "ray projection"
    assert "patch convolution" in reasons["embeddings.patch_embedding.weight"]
    assert not [name for name in reasons if "attention" in name or "feed_forward" in name]
    assert "left float32 by the export" not in reasons.values()
    operators = {kept["operator"] for kept in found}
    assert "LayerNormalization" in operators
    assert not {"MatMulInteger", "DequantizeLinear", "Gather"} & operators
    assert {kept["encoder"] for kept in found} == {"vision", "aligner"}


def test_fp16_is_audited_too_and_float32_is_not(tiny_bundle: Path, stllm: Any) -> None:
    assert {kept["operator"] for kept in audited(stllm, tiny_bundle, "fp16")} >= {"LayerNormalization"}
    result = stllm("calib", "audit", "--bundle", tiny_bundle, "--precision", "fp32")
    assert result.exit_code == 2
    assert "all of it is float32" in result.output
    lines = stllm("calib", "audit", "--bundle", tiny_bundle, "--precision", "fp16")
    assert "sums of squares" in lines.stdout
    missing = stllm("calib", "audit", "--bundle", tiny_bundle, "--precision", "points=int8")
    assert missing.exit_code == 2
    assert "does not hold it" in missing.output
