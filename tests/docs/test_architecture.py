"""The page that shows the architecture: what it names is there, and its picture is the one that its script draws."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PICTURE = (DOCS / "architecture.svg").read_text(encoding="utf-8")
SOURCES = ("runtime", "export", "benchmarks", "calib")
# [`host/rays.py`](../runtime/host/rays.py) `scale_intrinsics`, `frame_directions`
NAMED = re.compile(r"\[`([\w/]+\.py)`\]\(\.\./([\w/]+\.py)\)((?:,? `[\w.]+`)+)")


def defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Functions, classes and methods, the latter as `Class.method`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from defined(node.body, f"{node.name}.")


def test_every_function_stands_where_the_page_says() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) == len(re.findall(r"\]\([^)]*\.py\)", PAGE)), "a link to a module without a function after it"
    missing = []
    for shown, target, names in named:
        assert target.endswith(shown)
        there = set(defined(ast.parse((ROOT / target).read_text(encoding="utf-8")).body))
        missing += [f"{target}: {name}" for name in re.findall(r"`([\w.]+)`", names) if name not in there]
    assert missing == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https:)([^)]+)\)", PAGE)
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_every_section_that_sources_cite_is_listed_and_has_its_equations() -> None:
    listed = set(re.findall(r"^- \*\*(\d+), ", PAGE, re.MULTILINE))
    rows = {number for cell in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for number in cell.split(", ")}
    texts = [file.read_text(encoding="utf-8") for folder in SOURCES for file in (ROOT / folder).rglob("*.py")]
    cited = {
        number
        for text in texts
        for found in re.findall(r"SPEC sections? ([\d, and]+)", text)
        for number in re.findall(r"\d+", found)
    }
    assert {"3", "4", "5", "6", "7", "8"} <= rows <= listed
    assert cited <= listed
    assert len(cited) > 5


def test_picture_is_what_its_script_draws() -> None:
    assert runpy.run_path(str(DOCS / "draw_architecture.py"))["draw"]() == PICTURE, "run make docs"


def test_picture_names_modules_that_exist() -> None:
    words = [element.text or "" for element in ElementTree.fromstring(PICTURE).iter() if element.tag.endswith("text")]
    modules = [word for word in words if re.fullmatch(r"[\w/]+\.py", word)]
    assert len(modules) > 5
    assert [module for module in modules if not (ROOT / "runtime" / module).is_file()] == []
