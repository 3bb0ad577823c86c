"""Boards in their power modes, and where their figures come from."""

from collections.abc import Iterator
from typing import Any

import pytest
from stllm_edge.benchmarks.planner.devices import cpu_shares, find_device, names, table
from stllm_edge.benchmarks.planner.work import GPU_STAGES
from stllm_edge.runtime.errors import BadInput


def tables(entry: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, entry
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from tables(value, f"{place}.{key}")


def test_every_figure_has_its_source() -> None:
    with_figures = [
        (place, entry)
        for place, entry in tables(table())
        if any(isinstance(value, int | float | list) and not isinstance(value, bool) for value in entry.values())
    ]
    assert len(with_figures) > 20
    assert [place for place, entry in with_figures if len(entry.get("source", "")) < 8] == []


@pytest.mark.parametrize(
    ("name", "gigabytes", "teraflops"),
    [
        # data sheets: 68 and 102 GB/s, 204.8 GB/s, 273 GB/s; half of the dense INT8 rate of the GPU
        ("orin-nano-8gb@15W", 68.3, 10.0),
        ("orin-nano-8gb@MAXN_SUPER", 102.4, 16.7),
        ("agx-orin-64gb@MAXN", 204.7, 42.6),
        ("agx-thor@MAXN", 273.0, 258.0),
    ],
)
def test_clocks_give_what_data_sheets_state(name: str, gigabytes: float, teraflops: float) -> None:
    device = find_device(name)
    assert device.bandwidth / 1e9 == pytest.approx(gigabytes, rel=0.01)
    assert device.flops["fp16"] / 1e12 == pytest.approx(teraflops, rel=0.01)
    assert device.idle.low <= device.idle.high < device.visible
    assert device.usable == device.visible - device.idle.high


def test_all_devices_have_all_stages() -> None:
    assert len(names()) >= 6
    for shares in (*(find_device(name).shares for name in names()), cpu_shares()):
        assert set(shares) == set(GPU_STAGES)
        for share in shares.values():
            assert 0 < share.compute.low <= share.compute.high
            assert 0 < share.bandwidth.low <= share.bandwidth.high <= 1


def test_a_mode_is_found_where_there_is_one() -> None:
    assert find_device("agx-thor") == find_device("agx-thor@MAXN")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orin", r"--device orin: no such board; there are orin-nano-8gb, .*agx-thor, and this for this machine"),
        ("orin-nano-8gb", r"the power mode is missing; its modes are 15W, 25W, MAXN_SUPER: orin-nano-8gb@15W"),
        ("orin-nano-8gb@50W", r"orin-nano-8gb has no mode 50W; its modes are 15W, 25W, MAXN_SUPER"),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_device(name)
