"""Subsets: the authors' forms, types and scenes, and what is not possible."""

import pytest
from stllm_edge.benchmarks.rea.subset import Subset
from stllm_edge.runtime import BadInput


def places(rea, *arguments, **options) -> list[int]:
    samples = rea.open().samples
    return [samples.index(sample) for sample in Subset(*arguments, **options).of(samples)]


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("all", range(8)),
        ("first:3", range(3)),
        ("end:3", range(5, 8)),
        ("50%", range(4)),
        ("1%", range(1)),
        ("26%", range(3)),
        ("end:25%", range(6, 8)),
        ("random:8", range(8)),
        ("100%", range(8)),
    ],
)
def test_forms(rea, spec: str, chosen: range) -> None:
    assert places(rea, spec) == list(chosen)


def test_random_follows_its_seed_keeps_the_order_and_grows(rea) -> None:
    three, five = places(rea, "random:3"), places(rea, "random:5")
    assert three == sorted(three) == places(rea, "random:3")
    assert set(three) < set(five)
    assert len({tuple(places(rea, "random:4", seed=seed)) for seed in range(8)}) > 4


def test_types_and_scenes_come_before_the_form(rea) -> None:
    assert places(rea, types=("find_my_item",)) == [1, 3, 5, 7]
    assert places(rea, scenes=("P02_101",)) == [4, 5, 6, 7]
    assert places(rea, "end:1", types=("relative_direction",), scenes=("P01_11",)) == [2]
    assert places(rea, types=("relative_direction", "find_my_item")) == list(range(8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spec": "some"}, "--subset some: unknown; known are all, first:N, end:N, random:N or N%"),
        ({"spec": "5"}, "--subset 5: unknown"),
        ({"spec": "first:-1"}, "--subset first:-1: unknown"),
        ({"spec": "first:0"}, "--subset first:0: asks for 0 of 8 samples"),
        ({"spec": "random:9"}, "--subset random:9: asks for 9 of 8 samples"),
        ({"spec": "101%"}, "--subset 101%: asks for 9 of 8 samples"),
        ({"types": ("colour",)}, "--type colour: unknown; known are relative_direction, "),
        ({"scenes": ("P09_1",)}, "--scene P09_1: unknown; known are P01_11, P02_101"),
        ({"types": ("action_planning",)}, "no sample is of both the types and the scenes"),
    ],
)
def test_what_is_not_possible(rea, options, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        places(rea, **options)
