"""What is told of a question while it runs."""

from pathlib import Path

from stllm_edge.runtime import Options, Session, load_clip, load_scene
from stllm_edge.runtime.control.events import Done, Event, StageFinished, StageStarted, Text, to_json

EXACT = Options(precision="fp32", quant="F32", kv="f32", flash_attention=False, threads=1, resident=True)
ORDER = ["voxels", "maps", "rays", "video", "vision", "points", "rays", "aligner", "prefill", "decode"]


def test_each_stage_begins_and_ends_and_then_there_is_text(tiny_bundle: Path, inputs) -> None:
    told: list[Event] = []
    with Session(tiny_bundle, EXACT) as session:
        scene, clip = load_scene(inputs.scene), load_clip(inputs.video)
        answer = session.ask(scene, clip, "Where?", frames=2, max_new_tokens=4, listen=told.append)
        list(answer)
    assert [event.stage for event in told if isinstance(event, StageStarted)] == ORDER
    for stage in ORDER:
        ended = [event.milliseconds for event in told if isinstance(event, StageFinished) and event.stage == stage]
        assert ended == sorted(ended)
        assert len(ended) == ORDER.count(stage)
    assert "".join(event.text for event in told if isinstance(event, Text)) == answer.text
    assert told[-1] == Done(answer.text, answer.ended, len(answer.token_ids), told[-1].milliseconds)
    assert set(told[-1].milliseconds) == set(answer.meter.milliseconds)


def test_events_are_json_with_their_kind() -> None:
    assert to_json(StageStarted("vision")) == {"event": "stage_started", "stage": "vision"}
    assert to_json(Text("On")) == {"event": "text", "text": "On"}
    assert to_json(Done("On", "stop", 2)) == {
        "event": "done",
        "text": "On",
        "ended": "stop",
        "new_tokens": 2,
        "milliseconds": {},
    }
