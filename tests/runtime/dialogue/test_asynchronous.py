"""Answers for asyncio: in turn, piece by piece, and ended by whoever leaves."""

import asyncio
from typing import Any

import pytest
from stllm_edge.runtime import BadInput, Cancelled, Session, load_clip, load_scene

SHORT = {"max_new_tokens": 4}


async def joined(pieces: Any) -> str:
    return "".join([piece async for piece in pieces])


def test_pieces_are_those_of_an_answer_and_questions_wait_for_each_other(session: Session, view, inputs) -> None:
    questions = ("Where?", "Left?", "Right?")
    plain = ["".join(session.answer(view, question, **SHORT)) for question in questions]

    async def ask() -> list[str]:
        return await asyncio.gather(*(joined(session.answer_async(view, question, **SHORT)) for question in questions))

    assert asyncio.run(ask()) == plain
    scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
    assert asyncio.run(joined(session.ask_async(scene, clip, "Where?", frames=2, **SHORT))) == plain[0]
    assert "".join(session.answer(view, "Where?", **SHORT)) == plain[0]


def test_errors_come_where_they_are_waited_for(session: Session, view) -> None:
    with pytest.raises(BadInput, match="the question is empty"):
        session.answer_async(view, " ")
    with pytest.raises(BadInput, match="positions, the model was made for"):
        asyncio.run(joined(session.answer_async(view, "Where?", max_new_tokens=10**6)))
    with pytest.raises(Cancelled, match="max-time"):
        asyncio.run(joined(session.answer_async(view, "Where?", max_time=1e-6)))


def test_a_cancelled_task_and_a_loop_that_is_left_end_the_question(session: Session, view) -> None:
    long = "Where is it? " * 1000
    plain = "".join(session.answer(view, "Where?", **SHORT))

    async def leave() -> list[str]:
        task = asyncio.create_task(joined(session.answer_async(view, long, max_new_tokens=5000)))
        await asyncio.sleep(0.1)
        begin = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - begin < 1
        pieces = session.answer_async(view, "Where?", max_new_tokens=5000)
        async for _ in pieces:
            break
        await pieces.aclose()
        return [await joined(session.answer_async(view, "Where?", **SHORT))]

    assert asyncio.run(leave()) == [plain]
    assert "".join(session.answer(view, "Where?", **SHORT)) == plain


def test_the_event_loop_runs_meanwhile(session: Session, view) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.002)

    async def ask() -> None:
        ticking = asyncio.create_task(tick())
        await joined(session.answer_async(view, "Where is it? " * 400, **SHORT))
        ticking.cancel()

    asyncio.run(ask())
    assert ticks > 5
