"""A library that does not load is one line with what mends it, whatever its binding raises."""

import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stllm_edge.runtime.errors import MissingDependency
from stllm_edge.runtime.libraries import load_library

Fake = Callable[[str], str]
# what loaders say, by what mends it
SAID = {
    "LD_PRELOAD=libgomp.so.1": "libgomp.so.1: cannot allocate memory in static TLS block",
    "LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp-d22c30c5.so.1.0.0": (
        "/usr/lib/aarch64-linux-gnu/libgomp-d22c30c5.so.1.0.0: cannot allocate memory in static TLS block"
    ),
    "the build of fake_binding for the CPU": (
        "Failed to load shared library '/x/libllama.so': libcudart.so.12: cannot open shared object file: No such file"
    ),
    "install the CUDA that": "libcublasLt.so.12: cannot open shared object file: No such file or directory",
    "belongs to CUDA": "libnvinfer.so.10: cannot open shared object file: No such file or directory",
    "the system's package that has libGL.so.1": "libGL.so.1: cannot open shared object file: No such file or directory",
    "built for another CPU": "/x/libllama.so: wrong ELF class: ELFCLASS32",
    "--force-reinstall --no-cache-dir fake_binding on this device": "/x/lib.so: invalid ELF header",
    "this system is older": "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x/libllama.so)",
    "install an older fake_binding": "libstdc++.so.6: version `GLIBCXX_3.4.32' not found",
    "noexec": "/x/lib.so: failed to map segment from shared object",
    "of different versions": "/x/lib.so: undefined symbol: llama_free",
    "pip install fake-binding": "something else",
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a module that does as a test says as it is imported; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(code: str) -> str:
        (tmp_path / "fake_binding").mkdir()
        (tmp_path / "fake_binding" / "__init__.py").write_text(code)
        importlib.invalidate_caches()
        return "fake_binding"

    return make


@pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError"])
@pytest.mark.parametrize("mend", SAID)
def test_what_a_loader_says_is_told_with_what_mends_it(kind: str, mend: str, fake: Fake) -> None:
    with pytest.raises(MissingDependency) as caught:
        load_library(fake(f"raise {kind}({SAID[mend]!r})"), "pip install fake-binding")
    message = str(caught.value)
    assert message.startswith(f"fake_binding does not load ({SAID[mend]})")
    assert mend in message
    assert "\n" not in message


def test_the_line_that_names_the_cause_is_told(fake: Fake) -> None:
    said = "\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: libopenblas.so.0: cannot open shared object file\n"
    code = f"try:\n    import not_there\nexcept ImportError as error:\n    raise ImportError({said!r}) from error"
    with pytest.raises(
        MissingDependency, match=r"load \(Original error was: libopenblas.*package that has libopenblas"
    ):
        load_library(fake(code))


def test_what_is_not_there_is_told_apart_from_what_it_lacks(fake: Fake) -> None:
    with pytest.raises(MissingDependency, match=r"not_there is not installed .*pip install not-there"):
        load_library("not_there", "pip install not-there")
    with pytest.raises(MissingDependency, match=r"fake_binding does not load \(No module named 'not_there'\)"):
        load_library(fake("import not_there"))


COMMAND = """
import click
from stllm_edge.runtime.console import logging_options, reports_errors

@click.command()
@logging_options
@reports_errors
def work(quiet):
    {work}

work(prog_name="stllm-work")
"""
INSTRUCTION = {"x86_64": b"\x0f\x0b", "aarch64": b"\0\0\0\0"}
ILLEGAL = f"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write({INSTRUCTION.get(platform.machine())!r})
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


def run(folder: Path, work: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which finds the modules in a folder."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    program = [sys.executable, "-c", COMMAND.format(work=work)]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(platform.machine() not in INSTRUCTION, reason="no illegal instruction is known for this processor")
@pytest.mark.parametrize("code", [ILLEGAL, "import os, signal; os.kill(os.getpid(), signal.SIGILL)"])
def test_an_instruction_that_the_cpu_lacks_is_one_line(code: str, fake: Fake, tmp_path: Path) -> None:
    done = run(tmp_path, f"import {fake(code)}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stllm-work: a library is built for another CPU")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError"])
def test_a_command_that_imports_a_library_itself_says_the_same(kind: str, fake: Fake, tmp_path: Path) -> None:
    done = run(
        tmp_path, f"import {fake(f'raise {kind}(&libGL.so.1: cannot open shared object file&)'.replace('&', chr(34)))}"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stllm-work: fake_binding does not load (libGL.so.1: cannot open shared object file)")
    assert done.stderr.count("\n") == 1


def test_other_errors_keep_their_traceback(fake: Fake, tmp_path: Path) -> None:
    done = run(tmp_path, f"import {fake('def fail(): raise RuntimeError(1)')}; fake_binding.fail()")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("22-library-does-not-load/cuda_runtime/packages", "libcudart.so.12.*belongs to CUDA.*build of .* for the CPU"),
        ("22-library-does-not-load/static_tls/packages", r"set LD_PRELOAD=libgomp\.so\.1"),
    ],
)
def test_cases_from_the_field(case: str, words: str, cases: Path, sample: tuple[Path, Path], tiny_bundle: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{cases / case}:{os.environ.get('PYTHONPATH', '')}"}
    program = [sys.executable, "-c", "from stllm_edge.cli import run; run(prog_name='stllm-run')"]
    asked = ["--bundle", tiny_bundle, "--scene", sample[0], "--video", sample[1], "-f", "2", "-q", "What?", "--quiet"]
    done = subprocess.run([*program, *asked], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(words, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
