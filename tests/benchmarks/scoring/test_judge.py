"""The judge: prompts for a batch, and verdicts from a real HTTP server."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.scoring.chat import Endpoint
from stllm_edge.benchmarks.scoring.judge import judge, read_verdict
from stllm_edge.runtime.errors import BadInput

KEY = "sk-secret-0123456789"
TYPES = ["relative_direction", "find_my_item", "relative_direction"]
RECORDS = [
    {
        "id": f"q{number}",
        "question_type": name,
        "query": f"Question {number}?",
        "gt": "Left.",
        "pred": f"Answer {number}.",
    }
    for number, name in enumerate(TYPES)
]


@dataclass
class Server:
    """Answers from a script: a text is a reply, a number an HTTP status, bytes a raw body; then always "yes"."""

    script: list[str | int | bytes] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
        self.headers.append(dict(handler.headers))
        step = self.script.pop(0) if self.script else "yes"
        handler.send_response(step if isinstance(step, int) else 200)
        if step == 302:
            handler.send_header("Location", f"{self.url}/elsewhere")
        if step == 429:
            handler.send_header("Retry-After", "7")
        handler.end_headers()
        if isinstance(step, str):
            handler.wfile.write(json.dumps({"choices": [{"message": {"content": step}}]}).encode())
        elif isinstance(step, bytes):
            handler.wfile.write(step)
        else:
            handler.wfile.write(f"the key {handler.headers['Authorization']} is refused".encode())


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.respond(self)

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{listener.server_port}/v1"
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.fixture
def run(stllm: Any, server: Server, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with the server as judge; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    arguments = ["bench", "rea", "judge", results, "--out", tmp_path / "verdicts.jsonl", "--endpoint", server.url]
    return lambda *options: stllm(*arguments, *options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_prompts_have_the_form_of_a_batch(stllm: Any, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"
    result = stllm("bench", "rea", "judge", results, "--out", out, "--model", "judge-1", "--scale", "0-5")
    assert result.exit_code == 0, result.output
    prompts = lines(out)
    assert [prompt["custom_id"] for prompt in prompts] == ["q0", "q1", "q2"]
    assert {(prompt["method"], prompt["url"], prompt["body"]["model"]) for prompt in prompts} == {
        ("POST", "/v1/chat/completions", "judge-1")
    }
    asked = prompts[1]["body"]["messages"][-1]["content"]
    for part in ("Question: Question 1?", "Reference: Left.", "Answer: Answer 1.", "same place", "from 0 to 5"):
        assert part in asked


def test_prompts_replace_prompts_and_nothing_else(stllm: Any, results: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "prompts.jsonl", tmp_path / "config.json"
    for scale in ("yes-no", "0-5"):
        assert stllm("bench", "rea", "judge", results, "--out", out, "--scale", scale).exit_code == 0
    assert "from 0 to 5" in out.read_text()
    config.write_text('{"hidden_size": 1}')
    for target, words in ((config, "exists and is not a file of prompts"), (config / "below", "cannot be written")):
        result = stllm("bench", "rea", "judge", results, "--out", target)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"--out {target}: {words}" in result.stderr
    assert config.read_text() == '{"hidden_size": 1}'


@pytest.mark.parametrize(
    ("scale", "replies"),
    [
        (
            "yes-no",
            {"yes": 1, "No.": 0, "**Yes**, it does not differ": 1, "Correct": 1, "incorrect": 0, "not correct": 0},
        ),
        ("yes-no", {"The verdict is yes": 1, "<think>no, wait</think> yes": 1, "yes and no? who knows": 1, "": None}),
        ("yes-no", {"Hard to say: yes or no": None, "maybe": None}),
        (
            "0-5",
            {"4": 4, "4/5": 4, "Score: 5 out of 5.": 5, '{"score": 3}': 3, "0": 0, "3.0": 3, "2, as one is wrong": 2},
        ),
        ("0-5", {"6": None, "10": None, "3.5": None, "between 3 and 4": None, "good": None}),
    ],
)
def test_verdicts_are_read_from_replies(scale: str, replies: dict[str, int | None]) -> None:
    assert {reply: read_verdict(reply, scale) for reply in replies} == replies


def test_verdicts_are_written_and_summarised(run: Any, server: Server, tmp_path: Path) -> None:
    server.script = ["yes", "no", "hm"]
    result = run("--json")
    assert result.exit_code == 0, result.output
    header, *items = lines(tmp_path / "verdicts.jsonl")
    assert header["header"]["scale"] == "yes-no"
    assert [(item["id"], item["verdict"], item["reply"]) for item in items] == [
        ("q0", 1, "yes"),
        ("q1", 0, "no"),
        ("q2", None, "hm"),
    ]
    types = json.loads(result.stdout)["types"]
    assert types["relative_direction"]["mean"]["value"] == 0.5
    assert types["overall"]["n"] == 3
    assert types["overall"]["mean"]["value"] == pytest.approx(1 / 3)
    assert types["overall"]["unreadable"] == 1


def test_ratings_are_averaged(run: Any, server: Server) -> None:
    server.script = ["5", "1", "3"]
    result = run("--scale", "0-5")
    assert result.exit_code == 0, result.output
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
        ["find_my_item", "1", "1.00"],
        ["relative_direction", "2", "4.00"],
        ["overall", "3", "3.00"],
    ]


def test_an_interrupted_judge_goes_on_where_it_stopped(run: Any, server: Server, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    server.script = ["yes", 400]
    assert run().exit_code == 2
    with out.open("a") as file:
        file.write('{"id": "q1", "verd')
    result = run()
    assert result.exit_code == 0, result.output
    assert "1 of 3 verdicts are in" in result.stderr
    assert [item["id"] for item in lines(out)[1:]] == ["q0", "q1", "q2"]
    assert len(server.requests) == 4
    run()
    assert len(server.requests) == 4


def test_the_answers_are_not_overwritten(stllm: Any, results: Path) -> None:
    before = results.read_text()
    result = stllm("bench", "rea", "judge", results, "--out", results)
    assert result.exit_code == 2
    assert f"--out {results}: is the file of answers; choose another" in result.stderr
    assert results.read_text() == before


def test_verdicts_of_another_judge_are_refused(run: Any, tmp_path: Path) -> None:
    assert run().exit_code == 0
    result = run("--model", "other")
    assert result.exit_code == 2
    assert "verdicts.jsonl: was written with another model; choose another --out or delete it" in result.stderr


@pytest.mark.parametrize("content", ["some notes", "some\nnotes\n", '{"id": 1}\n'])
def test_a_file_of_something_else_is_not_touched(content: str, run: Any, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    out.write_text(content)
    result = run()
    assert result.exit_code == 2
    assert "exists and is not a file of this command; choose another --out" in result.stderr
    assert out.read_text() == content


def test_the_key_is_sent_and_never_shown(run: Any, server: Server, tmp_path: Path) -> None:
    server.script = [401]
    result = run("--verbose")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert result.exit_code == 2
    assert "HTTP 401: the key Bearer *** is refused" in result.stderr
    assert KEY not in result.output + (tmp_path / "verdicts.jsonl").read_text()


def test_redirects_are_not_followed(run: Any, server: Server) -> None:
    server.script = [302]
    assert "HTTP 302" in run().stderr
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_with_growing_pauses(server: Server) -> None:
    pauses: list[float] = []
    server.script = [500, 429, 503, "yes"]
    endpoint = Endpoint(server.url, sleep=pauses.append)
    assert endpoint.complete({"messages": []}) == "yes"
    assert pauses == [1.0, 7.0, 4.0]


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.script = [503] * 3
    endpoint = Endpoint(server.url, tries=3, sleep=lambda seconds: None)
    with pytest.raises(BadInput, match=r"no answer in 3 tries \(HTTP 503.*\); run again to resume"):
        judge(RECORDS, tmp_path / "out", endpoint.complete, model="m", scale="yes-no")


def test_a_reply_that_is_no_chat_completion_is_refused(run: Any, server: Server) -> None:
    server.script = [b"<html>welcome</html>"]
    assert "not a chat completion: <html>welcome</html>" in run().stderr


def test_a_server_out_of_reach_is_named(stllm: Any, results: Path, tmp_path: Path) -> None:
    arguments = ["bench", "rea", "judge", results, "--out", tmp_path / "v", "--tries", 1, "--endpoint"]
    result = stllm(*arguments, "http://127.0.0.1:9/v1")
    assert result.exit_code == 2
    assert "no answer in 1 tries" in result.stderr
    assert "refused" in result.stderr


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host/v1", "http://", "http://a b/v1"])
def test_what_is_no_url_is_refused(url: str, stllm: Any, results: Path, tmp_path: Path) -> None:
    result = stllm("bench", "rea", "judge", results, "--out", tmp_path / "v", "--endpoint", url)
    assert result.exit_code == 2
    assert f"--endpoint {url}: expected a URL such as http://localhost:8080/v1" in result.stderr
    assert not (tmp_path / "v").exists()


def test_a_key_that_cannot_be_sent_is_refused_unseen() -> None:
    with pytest.raises(BadInput, match="the API key holds a character") as refusal:
        Endpoint("http://localhost/v1", "secret\nkey")
    assert "secret" not in str(refusal.value)
