"""Messages between processes: arrays as they are, and what ends early noticed."""

import socket
from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest
from stllm_edge.runtime.encoders.channel import Channel

ARRAYS = {
    "none": {},
    "several": {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.float32([[[1.5]]])},
    "empty": {"a": np.zeros((0, 4), np.float32), "b": np.zeros(3, np.int64)},
    "scalar": {"a": np.array(2.5)},
    "strided": {"a": np.arange(24).reshape(4, 6)[::2, ::-3].T},
    "half": {"a": np.arange(5, dtype=np.float16)},
    "more than a socket holds": {"a": np.arange(2_000_000), "b": np.ones(2_000_000, np.float32)},
}
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_arrays_travel_unchanged(arrays: dict[str, np.ndarray], ends: Ends) -> None:
    sender, receiver = (Channel(end.fileno()) for end in ends)
    thread = Thread(target=lambda: [sender.send({"peak": count}, arrays) for count in (3, 4)])
    thread.start()
    for count in (3, 4):
        head, read = receiver.receive()
        assert head == {"peak": count}
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
            assert np.array_equal(read[name], array)
    thread.join()


def test_what_has_the_same_shape_is_received_into_the_same_memory(ends: Ends) -> None:
    sender, receiver = (Channel(end.fileno()) for end in ends)
    sender.send({}, {"same": np.zeros(3), "other": np.zeros(3), "gone": np.zeros(3)})
    _, first = receiver.receive()
    overwritten, kept = first["same"], first["other"]
    sender.send({}, {"same": np.ones(3), "other": np.ones((3, 1))})
    _, second = receiver.receive(first)
    assert second["same"] is overwritten
    assert np.array_equal(overwritten, np.ones(3))
    assert second["other"].shape == (3, 1)
    assert np.array_equal(kept, np.zeros(3))
    assert list(second) == ["same", "other"]


@pytest.mark.parametrize("count", [0, 3, 10, -1], ids=["nothing", "in the length", "in the head", "in an array"])
def test_a_message_that_ends_early_is_noticed(count: int, ends: Ends) -> None:
    whole, again = socket.socketpair()
    with whole, again:
        Channel(whole.fileno()).send({"peak": 3}, {"a": np.zeros(10)})
        message = again.recv(10_000)
    ends[0].sendall(message[:count])
    ends[0].close()
    with pytest.raises(EOFError):
        Channel(ends[1].fileno()).receive()


def test_a_reply_can_be_read_from_an_end_that_was_closed_before_it_read_everything(ends: Ends) -> None:
    one, other = (Channel(end.fileno()) for end in ends)
    other.send({"error": "what was wrong"})
    one.send({}, {"unread": np.zeros(3)})
    ends[1].close()
    with pytest.raises(ConnectionError):
        one.send({}, {"unread": np.zeros(10**6)})
    assert one.receive()[0] == {"error": "what was wrong"}
    with pytest.raises(EOFError):
        one.receive()


def test_what_cannot_be_sent_leaves_the_channel_clean(ends: Ends) -> None:
    one, other = (Channel(end.fileno()) for end in ends)
    with pytest.raises(TypeError):
        one.send({}, {"a": np.zeros(3), "b": np.array([object()])})
    one.send({"next": 1})
    assert other.receive() == ({"next": 1}, {})
