"""Messages between two processes on one machine: a head in JSON, then arrays."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Channel"]

LENGTH = 4


class Channel:
    """One end of a stream socket, over which messages go both ways.

    A message is the length of its head in four bytes, the head, and the bytes of the arrays that the head describes.
    A socket moves arrays about as fast as memory that two processes share for the first time, whose pages the kernel
    clears and maps one by one; and unlike such memory it leaves nothing behind, whichever process is killed, and is
    counted in neither.
    """

    def __init__(self, descriptor: int):
        """Use a file descriptor, which stays the caller's to close."""
        self._descriptor = descriptor

    def send(self, head: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
        """Send a message; blocks until the other end has taken most of it.

        Raises:
            ConnectionError: the other end is closed.
        """
        # arrays that cannot be sent raise here, before a part of the message is on its way
        pieces = {name: np.asarray(values, order="C") for name, values in (arrays or {}).items()}
        raw = [array.reshape(-1).view(np.uint8).data for array in pieces.values()]
        described = {name: [array.dtype.str, array.shape] for name, array in pieces.items()}
        text = json.dumps([head, described]).encode()
        for piece in (memoryview(len(text).to_bytes(LENGTH, "little") + text), *raw):
            while len(piece):
                piece = piece[os.write(self._descriptor, piece) :]

    def receive(self, reuse: dict[str, np.ndarray] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The next message.

        Args:
            reuse: arrays of an earlier message, which are overwritten where name, type and shape are the same.

        Raises:
            EOFError: the other end is closed, before the message or within it.
        """
        length, reuse = bytearray(LENGTH), reuse or {}
        self._fill(memoryview(length))
        text = bytearray(int.from_bytes(length, "little"))
        self._fill(memoryview(text))
        head, described = json.loads(text)
        arrays = {}
        for name, (dtype, shape) in described.items():
            array = reuse.pop(name, None)
            if array is None or (array.dtype.str, list(array.shape)) != (dtype, shape):
                del array  # given back before its successor is made
                array = np.empty(shape, dtype)
            self._fill(array.reshape(-1).view(np.uint8).data)
            arrays[name] = array
        return head, arrays

    def _fill(self, rest: memoryview) -> None:
        """Read until a buffer is full."""
        while len(rest):
            try:
                count = os.readv(self._descriptor, [rest])
            except ConnectionError:  # closed before it had read all that was sent to it
                count = 0
            if not count:
                raise EOFError("the other end is closed")
            rest = rest[count:]
