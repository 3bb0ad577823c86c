"""The numbers of names as columns, and those that tell a time together."""

import pytest
from stllm_edge.runtime.inputs.names.columns import TwoReadings, columns_of, with_clocks


def test_a_column_for_each_number() -> None:
    columns = columns_of(["cam0_007", "cam1_012"])
    assert [(column.label, column.values, column.width) for column in columns] == [("cam", (0, 1), 1), ("", (7, 12), 3)]
    assert [column.varies for column in columns] == [True, True]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("2021-03-05T10:11:12.123", ["2021-03-05T10:11:12.123"]),
        ("20210305_101112_0001", ["20210305_101112", "0001"]),
        ("2021-03-05_7", ["2021-03-05", "7"]),
        ("2021-13-05", ["2021", "13", "05"]),
        ("1502345678_0001", ["1502345678", "0001"]),
        ("00.01.02", ["00.01.02"]),
        ("12_99_61", ["12", "99", "61"]),
    ],
)
def test_numbers_that_tell_a_time_together_are_one(name: str, texts: list[str]) -> None:
    assert [column.digits[0] for column in with_clocks(columns_of([name]))] == texts


def test_a_fraction_that_may_be_a_count_states_both_orders() -> None:
    with pytest.raises(TwoReadings) as caught:
        with_clocks(columns_of(["12.9", "12.11"]))
    assert list(caught.value.ways.values()) == [[1, 0], [0, 1]]
