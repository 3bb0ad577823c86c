"""The page in a real browser: whole, quiet, readable on a phone and a desk, light, dark and printed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stllm_edge.benchmarks.reports.page import MOST_BYTES, page, write_page
from stllm_edge.benchmarks.reports.runs import Run
from stllm_edge.runtime.errors import BadInput

Writer = Callable[..., Path]
SMALL = {"questions": 4, "repetitions": 3}
HOSTILE = "<script>alert(1)</script>\"'><img src=http://127.0.0.1:9/x> {{ 7 * 7 }} {% raw %} \u202e & \x1b[31m"


@pytest.fixture(scope="module")
def written(run_recipe: Any, run_of: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about three runs, the last of another device."""
    runs = [
        run_of(run_recipe(**SMALL)),
        run_of(run_recipe(**SMALL, run="b", seed=1, slower={"vision": 1.15}, about={"quant": "Q8_0"}, end=None)),
        run_of(run_recipe(**SMALL, run="c", about={"device": "NVIDIA Jetson AGX Orin", "verified": False})),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, runs)
    return path


@pytest.mark.parametrize("width", [380, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands(width: int, scheme: str, written: Path, browser: Any) -> None:
    browser.open(written, width, scheme)
    assert browser.faults() == []
    assert browser.empty_pictures() == []
    assert browser.said() == []
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 22, 26)") == (scheme == "dark")


def test_the_page_prints(written: Path, browser: Any) -> None:
    # the width of A4 with its margins, in a browser that is dark
    browser.open(written, 718, "dark", media="print")
    assert browser.faults() == []
    assert browser.value("getComputedStyle(document.body).backgroundColor") != "rgb(20, 22, 26)"
    assert browser.value("[...document.querySelectorAll('.scroll')].every(s => s.scrollWidth <= s.clientWidth + 1)")
    assert browser.said() == []


def test_everything_is_told(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    for part in (
        "First token, warm", "A question, stage by stage", "Distribution of each stage", "Over time", "Temperature",
        "Clocks", "Comparison of runs", "slower at 5 %", "stllm-bench latency --bundle small --subset first:12",
        "is not complete: 36 answers count", "unverified: small has no passing parity record",
        "Not compared: it is of another device than run.jsonl.",
    ):  # fmt: skip
        assert part in text
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"<script|@import|url\(|src=", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"data:,"}


def test_texts_of_a_run_are_texts(run_recipe: Any, run_of: Callable[..., Run], tmp_path: Path, browser: Any) -> None:
    names = ("command", "device", "quant", "workload", "bundle_path", "power_mode", "provider", "cpu", "rails")
    about = dict.fromkeys(names, HOSTILE) | {"version_x<b>": HOSTILE, "governor": "x" * 300}
    runs = [
        run_of(run_recipe(questions=2, repetitions=1, about=about, run=run, slower={HOSTILE: 1.0}))
        for run in ("a", "b")
    ]
    write_page(tmp_path / "report.html", runs)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert "{{ 7 * 7 }}" in text
    browser.open(tmp_path / "report.html", 380)
    assert browser.said() == []
    assert browser.faults() == []
    assert browser.value("document.querySelectorAll('script, img, b b').length") == 0


def test_a_run_of_which_little_is_known(
    run_recipe: Any, run_of: Callable[..., Run], tmp_path: Path, browser: Any
) -> None:
    """One answer of one token, no sensor, no power mode."""
    known = run_of(run_recipe(questions=1, repetitions=1, phases=("warm",), new_tokens=2))
    about = {
        name: None if name in ("power_mode", "board", "noise", "governor") else value
        for name, value in known.about.items()
    }
    (whole,) = known.answers
    answer = type(whole)(
        "warm", "q", 0, None, None, None, None, None, None, whole.seconds, dict.fromkeys(whole.seconds),
        dict.fromkeys(whole.seconds), dict.fromkeys(whole.seconds, (None, None, None)), None,
    )  # fmt: skip
    write_page(tmp_path / "report.html", [Run(Path("little.jsonl"), about, (answer,), (), None)])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Temperature: no sensor on this machine." in text
    assert "Memory was not read on this machine." in text
    assert "None" not in text
    browser.open(tmp_path / "report.html", 380)
    assert browser.faults() == []


def test_many_runs_are_one_small_page(
    run_recipe: Any, run_of: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [{"device": f"board {number}"} for number in range(14)]
    runs = [run_of(run_recipe(questions=6, repetitions=2, about=about)) for about in devices]
    text = page(runs)
    assert len(text.encode()) <= MOST_BYTES
    told = text.count("<summary><h2>")
    assert 1 <= told < 14
    assert f"{14 - told} runs are told in tables only" in text
    assert all(f"board {number}" in text for number in range(14))
    monkeypatch.setattr("stllm_edge.benchmarks.reports.page.MOST_BYTES", 20_000)
    with pytest.raises(BadInput, match="14 runs are more than a page of 20 kB holds; give fewer files"):
        page(runs)


def test_the_command_writes_it(tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any) -> None:
    path = write_run(tmp_path / "a.jsonl", run_recipe(questions=2, repetitions=1))
    result = stllm("bench", "show", path, "--html", tmp_path / "new/report.html")
    assert result.exit_code == 0
    assert (tmp_path / "new/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").touch()
    refused = stllm("bench", "show", path, "--html", tmp_path / "file/report.html")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "report.html: cannot be written" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_without_jinja_it_says_what_to_install(
    tmp_path: Path, write_run: Writer, run_recipe: Any, stllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    path = write_run(tmp_path / "a.jsonl", run_recipe(questions=1, repetitions=1))
    result = stllm("bench", "show", path, "--html", tmp_path / "report.html")
    assert result.exit_code == 2
    assert "jinja2 is not installed; pip install 'stllm-edge[bench]'" in result.stderr
    assert stllm("bench", "show", path).exit_code == 0


# the checks find what they are for

IMAGE = '<img src="http://127.0.0.1:9/x.png">'
# what is planted instead of what, and what the checks say of it
DEFECTS = {
    "text over text": ('<text x="0" y="13">', '<text x="1" y="14">planted</text><text x="0" y="13">', 'over "'),
    "a long name": ('y="13">process<', f'y="13">{"process " * 9}<', 'over "'),
    "a picture cut off": ('<svg class="rows" role="img" width="100%" height="', r'\g<0>50" class="', "clipped <"),
    "nothing in a picture": ("</style>", ".plot * { visibility: hidden }</style>", "plot: nothing to see"),
    "a picture without a place": ("</style>", "svg.plot { width: 4px }</style>", "no picture"),
    "an image from elsewhere": ("<header>", f"{IMAGE}<header>", "log: "),
    "an image that is let in": (
        "img-src data:",
        f'img-src *">{IMAGE}<meta name="x',
        "request: http://127.0.0.1:9/x.png",
    ),
    "a script": ("<header>", "<script>1</script><header>", "log: "),
    "an error of a script": (
        "default-src 'none'",
        "script-src 'unsafe-inline'\"><script>no()</script><meta name=\"x",
        "console: ",
    ),
    "a wide block": ("<header>", '<div style="width: 900px">wide</div><header>', "sideways"),
    "a text beside the page": ("<header>", '<p style="position: absolute; left: -20px">aside</p><header>', "outside"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_the_checks_find_a_planted_defect(name: str, written: Path, browser: Any, tmp_path: Path) -> None:
    sound, planted, words = DEFECTS[name]
    copy = tmp_path / "report.html"
    text, count = re.subn(re.escape(sound), planted, written.read_text(encoding="utf-8"), count=1)
    assert count == 1
    copy.write_text(text, encoding="utf-8")
    browser.open(copy, 380)
    found = browser.faults() + browser.said() + (browser.empty_pictures() if "nothing" in name else [])
    assert any(words in fault for fault in found), found
