"""Bytes go where they save most."""

from stllm_edge.export.gguf.sizes import Step, frontier, padded, spend


def steps(*pairs: tuple[int, float]) -> list[Step]:
    return [Step(f"T{size}", size, loss) for size, loss in pairs]


def test_a_frontier_holds_what_is_worth_its_bytes() -> None:
    found = frontier(steps((8, 0.0), (4, 2.0), (5, 3.0), (2, 5.0), (4, 1.0)))
    assert [(step.bytes, step.loss) for step in found] == [(2, 5.0), (4, 1.0), (8, 0.0)]


def test_bytes_go_where_they_save_most() -> None:
    known = {"loud": steps((2, 8.0), (4, 1.0), (8, 0.0)), "mute": steps((2, 0.2), (4, 0.1), (8, 0.0))}
    begin = {name: found[0] for name, found in known.items()}
    chosen = {room: spend(known, begin, room) for room in (0, 2, 6, 8, 12, 99)}
    sizes = {room: (found["loud"].bytes, found["mute"].bytes) for room, found in chosen.items()}
    assert sizes == {0: (2, 2), 2: (4, 2), 6: (8, 2), 8: (8, 4), 12: (8, 8), 99: (8, 8)}


def test_what_does_not_fit_leaves_room_for_what_is_smaller() -> None:
    known = {"large": steps((2, 9.0), (10, 0.0)), "small": steps((2, 1.0), (4, 0.5))}
    chosen = spend(known, {name: found[0] for name, found in known.items()}, 5)
    assert (chosen["large"].bytes, chosen["small"].bytes) == (2, 4)


def test_tensors_are_padded() -> None:
    assert padded((1, 32), "Q8_0") == 64
    assert padded((4, 256), "Q4_K") == 576
