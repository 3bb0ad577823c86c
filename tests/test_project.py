"""The project's own checks: the type checker sees the whole package, and generated documentation is up to date."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stllm_edge

ROOT = Path(__file__).resolve().parent.parent


def test_help_texts_in_the_documentation_are_the_commands_own() -> None:
    """In a fresh interpreter, since click keeps help options of commands that have run."""
    program = "import runpy; print(runpy.run_path('docs/generate.py')['generate'](), end='')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == done.stdout, "run make docs"


def test_documents_have_no_gaps() -> None:
    """Placeholders for measured figures look like @@FIGURE@@."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("benchmarks/data/*/README.md")]
    assert len(documents) > 5
    assert [file.name for file in documents if "@@" in file.read_text(encoding="utf-8")] == []


@pytest.mark.slow
def test_type_checker_finds_an_error_in_any_module(tmp_path: Path) -> None:
    """A check of the package that found no files would pass as well."""
    module = Path(str(stllm_edge.__file__)).parent / "runtime/host/voxels.py"
    planted = tmp_path / "voxels.py"
    planted.write_text(f"{module.read_text()}\n\nWRONG: int = str(3)\n")
    if (cache := ROOT / ".mypy_cache").is_dir():
        shutil.copytree(cache, tmp_path / "cache")
    check = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", "-p", "stllm_edge"]
    done = subprocess.run(
        [*map(str, check), "--shadow-file", str(module), str(planted)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1
    assert "runtime/host/voxels.py" in errors[0]
    assert "Incompatible types in assignment" in errors[0]
