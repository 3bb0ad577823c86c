"""Where things stand: the direction of imports, sizes, tests beside the tree, and the tree that the README shows.

Each rule is a function from a folder to what breaks it; below, each is shown to find a planted offence.
"""

import ast
import doctest
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "stllm_edge"
PARTS = ("benchmarks", "calib", "export", "runtime")
# a name imports those of later lines, never one of an earlier line or of its own
LAYERS = (("cli",), ("benchmarks",), ("calib",), ("export",), ("runtime",))
RUNTIME_LAYERS = (
    ("__init__",),
    ("commands",),
    ("chat",),
    ("request",),
    ("preset",),
    ("session",),
    ("dialogue",),
    ("answer",),
    ("cache",),
    ("stages",),
    ("setup",),
    ("options",),
    ("fit",),
    ("encoders", "llm", "inputs", "host"),
    ("bundle",),
    ("console",),
    ("memory",),
    ("control",),
    ("libraries",),
    ("errors",),
)
SERVER_SIDE = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript", "gguf"}
MOST_MODULES, MOST_FILE, MOST_FUNCTION, MOST_CLASS = 12, 400, 45, 200
# tests of no single module, and why
OF_NO_MODULE = {
    "tests/test_golden.py": "the whole pipeline against reference tensors",
    "tests/test_project.py": "documents and the type checker",
    "tests/test_structure.py": "this tree",
    "tests/docs/test_architecture.py": "the page on how things travel",
    "tests/runtime/inputs/together/test_formats.py": "the same scene and clip through every format",
    "tests/runtime/inputs/together/test_cases.py": "inputs as users have them, through the whole of stllm-run",
    "tests/runtime/test_imports.py": "what the device side imports",
    "tests/export/test_mutations.py": "errors planted in a bundle or a checkpoint",
    "tests/export/tensorrt/test_real_size.py": "engines at the released model's size",
}
# modules, or folders of modules, without a test file of their name: the file that tests them
TESTED_ELSEWHERE = json.loads((ROOT / "tests/data/tested_elsewhere.json").read_text(encoding="utf-8"))

Found = Iterator[str]


def files_of(root: Path) -> list[Path]:
    """Files of the project relative to its root: those that git knows or would add; in a tree without git, all."""
    if not (root / ".git").exists():
        return sorted(file.relative_to(root) for file in root.rglob("*") if file.is_file())
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True)
    return sorted(path for path in map(Path, done.stdout.splitlines()) if (root / path).is_file())


def python_files(root: Path) -> list[Path]:
    return [file for file in files_of(root) if file.suffix == ".py"]


def modules(root: Path) -> list[Path]:
    """Files of the package itself."""
    return [file for file in python_files(root) if file.parts[0] in PARTS or file.name == "cli.py"]


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


# the direction of imports


def imports(root: Path, file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what a module imports, inside functions too; names of the package begin with a dot."""
    folder = file.parent.parts
    for node in ast.walk(parse(root / file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, relative(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = f".{'.'.join((*above, node.module or ''))}" if node.level else relative(node.module or "")
            for alias in node.names:
                full = f"{base.rstrip('.')}.{alias.name}"
                inside = root.joinpath(*full.strip(".").split("."))
                yield node.lineno, full if inside.with_suffix(".py").is_file() or inside.is_dir() else base


def relative(name: str) -> str:
    """The package's own names as from its root, with a dot before them."""
    return name.removeprefix(PACKAGE) or "." if name.partition(".")[0] == PACKAGE else name


def upward_imports(root: Path) -> Found:
    """Imports against the layers."""
    for file in modules(root):
        for line, name in imports(root, file):
            if not name.startswith("."):
                if file.parts[0] == "runtime" and name.partition(".")[0] in SERVER_SIDE:
                    yield f"{file}:{line}: the runtime imports {name}"
                continue
            ours, theirs = file.with_suffix("").parts, tuple(name.strip(".").split("."))
            layers = LAYERS
            if ours[0] == theirs[0] == "runtime":
                ours, theirs, layers = ours[1:], theirs[1:] or ("__init__",), RUNTIME_LAYERS
            if ours[0] != theirs[0] and (reason := against(layers, ours[0], theirs[0])):
                yield f"{file}:{line}: {reason}"


def against(layers: tuple[tuple[str, ...], ...], ours: str, theirs: str) -> str | None:
    """Why one name must not import another."""
    heights = {name: height for height, names in enumerate(layers) for name in names}
    if unknown := [name for name in (ours, theirs) if name not in heights]:
        return f"{unknown[0]} stands in no layer; give it one in this test"
    return f"{ours} imports {theirs}" if heights[ours] >= heights[theirs] else None


# sizes


def full_folders(root: Path) -> Found:
    """Folders with too many modules, `__init__` and `conftest` aside."""
    counts = Counter(f.parent for f in python_files(root) if f.stem not in ("__init__", "conftest"))
    yield from (f"{folder}: {n} modules, at most {MOST_MODULES}" for folder, n in counts.items() if n > MOST_MODULES)


def long_files(root: Path) -> Found:
    for file in python_files(root):
        lines = len((root / file).read_text(encoding="utf-8").splitlines())
        if lines > MOST_FILE:
            yield f"{file}: {lines} lines, at most {MOST_FILE}"


def long_definitions(root: Path) -> Found:
    """Functions and classes that are too long, from their first line to their last, decorators aside."""
    for file in python_files(root):
        for node in ast.walk(parse(root / file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                most = MOST_CLASS if isinstance(node, ast.ClassDef) else MOST_FUNCTION
                if lines > most:
                    yield f"{file}:{node.lineno}: {node.name} has {lines} lines, at most {most}"


# what a package says of itself, and what the README says


def packages(root: Path) -> list[Path]:
    """Folders with modules, the root included."""
    return sorted({file.parent for file in modules(root)})


def silent_packages(root: Path) -> Found:
    """Packages whose docstring is not of two or three lines, blank lines and examples aside."""
    for folder in packages(root):
        file = root / folder / "__init__.py"
        text = (ast.get_docstring(parse(file)) if file.is_file() else None) or ""
        prose = [part for part in doctest.DocTestParser().parse(text) if isinstance(part, str)]
        lines = [line for line in "\n".join(prose).splitlines() if line.strip()]
        if not 2 <= len(lines) <= 3:
            yield f"{folder / '__init__.py'}: a docstring of {len(lines)} lines, expected two or three"


def folders(root: Path) -> set[str]:
    """Folders that the README names: those at the top, and one level of the package's parts."""
    visible = [file for file in files_of(root) if not file.parts[0].startswith(".")]
    above = {file.parts[0] for file in visible if len(file.parts) > 1}
    return above | {"/".join(file.parts[:2]) for file in visible if file.parts[0] in PARTS and len(file.parts) > 2}


def wrong_tree(root: Path) -> Found:
    """Folders that the README's tree lacks, and folders that are not there."""
    text = (root / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## The house\n.*?^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if block is None:
        yield "README.md: has no tree under `## The house`"
        return
    shown: list[str] = []
    for line in block[1].splitlines():
        entry = re.fullmatch(r"( {0,2})([\w-]+)/ +\S.*", line)
        if entry is None:
            yield f"README.md: {line!r} is not `folder/   what it is`"
        else:
            shown.append(f"{shown[-1].split('/')[0]}/{entry[2]}" if entry[1] and shown else entry[2])
    yield from (f"README.md: the tree lacks {folder}/" for folder in sorted(folders(root) - set(shown)))
    yield from (
        f"README.md: the tree has {folder}/, which is not there" for folder in shown if folder not in folders(root)
    )


# tests beside the tree


def has_behaviour(file: Path) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in parse(file).body)


def stray_tests(root: Path) -> Found:
    """Tests that are not where the module or the package that they are named after is."""
    there = set(python_files(root))
    for file in there:
        if file.parts[0] == "tests" and file.name.startswith("test_") and str(file) not in OF_NO_MODULE:
            name, folder = file.stem.removeprefix("test_"), Path(*file.parts[1:-1])
            known = (folder / f"{name}.py", folder / name / "__init__.py")
            if name != folder.name and not there & set(known):
                yield f"{file}: tests no {known[0]}; move it, or say in this test what it is of"


def untested_modules(root: Path) -> Found:
    """Modules with behaviour but without a test file of their name or a stated one."""
    there = {str(file) for file in python_files(root)}
    for file in modules(root):
        own = str(Path("tests", *file.parts[:-1], f"test_{file.name}"))
        if file.name == "__init__.py" or not has_behaviour(root / file):
            continue
        if own in there and str(file) in TESTED_ELSEWHERE:
            yield f"{file}: has {own}; leave it out of the list of others"
        stated = TESTED_ELSEWHERE.get(str(file)) or TESTED_ELSEWHERE.get(str(file.parent))
        if own not in there and stated not in there:
            yield f"{file}: neither {own} nor a stated test is there"


def stale_lists(root: Path) -> Found:
    """Names in the lists of this test that are not there."""
    listed = dict.fromkeys([*OF_NO_MODULE, *TESTED_ELSEWHERE, *TESTED_ELSEWHERE.values()])
    yield from (f"{name}: is in a list of this test and not there" for name in listed if not (root / name).exists())


RULES = (
    upward_imports,
    full_folders,
    long_files,
    long_definitions,
    silent_packages,
    wrong_tree,
    stray_tests,
    untested_modules,
    stale_lists,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule: Callable[[Path], Found]) -> None:
    assert sorted(rule(ROOT)) == []


# each rule finds what breaks it

TREE = """## The house

```text
calib/     nothing yet
runtime/   from a bundle to an answer
  bundle/  the format
tests/     as the tree
```
"""


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., Path]:
    """A small tree that keeps the rules, with files added or changed."""
    said = '"""What is inside.\n\nWhat goes in and out.\n"""\n'
    files = {
        "README.md": TREE,
        **{f"{folder}__init__.py": said for folder in ("", "calib/", "runtime/", "runtime/bundle/")},
        "cli.py": "from .runtime import session\n",
        "runtime/session.py": "from .bundle import manifest\n\n\ndef look():\n    from .errors import BadInput\n",
        "runtime/errors.py": "BadInput = ValueError\n",
        "runtime/bundle/manifest.py": f"import numpy\nfrom {PACKAGE}.runtime.errors import BadInput\n",
        "tests/runtime/test_session.py": "import torch\n",
    }

    def build(**changed: str) -> Path:
        for name, text in (files | changed).items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return build


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule is not stale_lists], ids=lambda rule: rule.__name__)
def test_a_tree_that_keeps_the_rules_is_left_alone(rule: Callable[[Path], Found], house: Callable[..., Path]) -> None:
    assert list(rule(house())) == []


LONG = "    pass\n" * 45
PLANTED = {
    "up, by a relative name": (upward_imports, "runtime/errors.py", "from .. import cli\n", "runtime imports cli"),
    "up, by a module": (upward_imports, "runtime/errors.py", "from ..calib import ranges\n", "runtime imports calib"),
    "up, by a full name": (upward_imports, "calib/x.py", f"import {PACKAGE}.cli\n", "calib imports cli"),
    "up, from the package": (upward_imports, "calib/x.py", f"from {PACKAGE} import cli\n", "calib imports cli"),
    "up, in a function": (
        upward_imports,
        "runtime/bundle/x.py",
        "def load():\n    from ..session import look\n",
        "runtime/bundle/x.py:2: bundle imports session",
    ),
    "beside": (upward_imports, "runtime/llm/x.py", "from ..host.rays import rays\n", "llm imports host"),
    "the runtime's front door": (
        upward_imports,
        "runtime/llm/x.py",
        "from ...runtime import Scene\n",
        "llm imports __init__",
    ),
    "the server's side": (
        upward_imports,
        "runtime/x.py",
        "def f():\n    import torch.nn\n",
        "the runtime imports torch",
    ),
    "no layer": (upward_imports, "runtime/odd.py", "from .errors import BadInput\n", "odd stands in no layer"),
    "a long file": (long_files, "tests/runtime/test_x.py", "x = 1\n" * 401, "401 lines, at most 400"),
    "a long function": (long_definitions, "calib/x.py", f"def long():\n{LONG}", "long has 46 lines, at most 45"),
    "a long method": (long_definitions, "calib/x.py", f"class A:\n  def long():\n{LONG}", "x.py:2: long has 46"),
    "a long class": (long_definitions, "calib/x.py", "class Long:\n" + "    x = 1\n" * 200, "Long has 201 lines"),
    "a silent package": (silent_packages, "calib/__init__.py", '"""One line."""\n', "a docstring of 1 lines"),
    "no package": (silent_packages, "export/x.py", "", "export/__init__.py: a docstring of 0 lines"),
    "a verbose package": (silent_packages, "calib/__init__.py", '"""1\n2\n3\n4\n"""\n', "a docstring of 4 lines"),
    "no tree": (wrong_tree, "README.md", "## The house\n", "has no tree"),
    "a folder not shown": (wrong_tree, "runtime/llm/x.py", "", "the tree lacks runtime/llm/"),
    "a folder that is gone": (
        wrong_tree,
        "README.md",
        TREE.replace("tests/ ", "export/  gone\ntests/ "),
        "the tree has export/, which is not there",
    ),
    "a folder without a word": (wrong_tree, "README.md", TREE.replace("the format", ""), "is not `folder/   what it"),
    "a test of nothing": (stray_tests, "tests/runtime/test_nothing.py", "", "tests no runtime/nothing.py"),
    "a test elsewhere": (stray_tests, "tests/test_session.py", "", "tests no session.py"),
    "no test": (untested_modules, "calib/x.py", "def f():\n    pass\n", "neither tests/calib/test_x.py nor"),
    "a stated test that is not there": (untested_modules, "runtime/console.py", "class A:\n    pass\n", "nor a stated"),
    "a list that is out of date": (stale_lists, "cli.py", "", "tests/test_golden.py: is in a list"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_breaks_a_rule_is_found(name: str, house: Callable[..., Path]) -> None:
    rule, file, content, words = PLANTED[name]
    assert any(words in line for line in rule(house(**{file: content})))


def test_a_full_folder_is_found(house: Callable[..., Path]) -> None:
    root = house(**{f"calib/x{number}.py": "" for number in range(MOST_MODULES)})
    assert list(full_folders(root)) == []
    (root / "calib/one_more.py").touch()
    assert list(full_folders(root)) == ["calib: 13 modules, at most 12"]
