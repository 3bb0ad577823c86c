"""The table of all commands: where the function of each is, which is imported when it is called.

Options stand beside the work, in the `commands.py` of each package.
"""

import importlib
from typing import Any

import click

__all__ = ["COMMANDS", "bench", "calib", "command", "export", "run"]

COMMANDS: dict[str, Any] = {
    "stllm-export": (
        "Turn a trained ST-LLM checkpoint into a bundle that stllm-run answers from.",
        {
            "all": "export.commands:everything",
            "gguf": "export.commands:gguf",
            "inspect": "export.commands:inspect",
            "onnx": "export.commands:onnx",
            "tensorrt": "export.commands:tensorrt",
            "verify": "export.commands:verify",
        },
    ),
    "stllm-run": ("runtime.commands:run", {"bag-info": "runtime.commands:bag_info", "check": "runtime.commands:check"}),
    "stllm-calib": (
        "Collect real inputs, and measure on them what number formats cost.",
        {
            "audit": "calib.commands:audit",
            "collect": "benchmarks.precisions.commands:collect",
            "gate": "benchmarks.precisions.commands:gate",
            "imatrix": "benchmarks.rea.commands:imatrix",
            "merge": "calib.commands:merge",
            "sensitivity": "calib.commands:sensitivity",
        },
    ),
    "stllm-bench": (
        "Generate checkpoints of any size and measure on them.",
        {
            "checkpoint": "benchmarks.commands:checkpoint",
            "compare": "benchmarks.reports.commands:compare",
            "encoder": "benchmarks.commands:encoder",
            "encoders": "benchmarks.precisions.commands:encoders",
            "latency": "benchmarks.latency.commands:latency",
            "plan": "benchmarks.planner.commands:plan",
            "quality": "benchmarks.quality.commands:quality",
            "rea": (
                "Generate, check, answer and score subsets of the REA data set.",
                {
                    "check": "benchmarks.rea.commands:check",
                    "compare": "benchmarks.rea.commands:compare",
                    "judge": "benchmarks.rea.commands:judge",
                    "merge": "benchmarks.rea.commands:merge",
                    "run": "benchmarks.rea.commands:run",
                    "score": "benchmarks.rea.commands:score",
                    "synth": "benchmarks.rea.commands:synth",
                },
            ),
            "reference": "benchmarks.commands:reference",
            "reuse": "benchmarks.commands:reuse",
            "room": "benchmarks.commands:room",
            "show": "benchmarks.reports.commands:show",
            "sweep": "benchmarks.planner.commands:sweep",
            "tune": "benchmarks.tuning.commands:tune",
        },
    ),
}
SETTINGS = {"help_option_names": ["-h", "--help"]}


class Table(click.Group):
    """A group whose commands are imported when one of them is called, or when they are listed."""

    def __init__(self, name: str, summary: str, entries: dict[str, Any]):
        super().__init__(name, help=summary, context_settings=SETTINGS)
        self.entries = entries

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.entries)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return find(name, self.entries[name]) if name in self.entries else None


class Work(Table):
    """A command that has others below it: their names come first, all else is its own."""

    def __init__(self, name: str, own: str, entries: dict[str, Any]):
        super().__init__(name, "", entries)
        self.own = find(name, own)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.entries:
            return super().make_context(info_name, args, parent, **extra)
        return self.own.make_context(info_name, args, parent, **extra)

    def invoke(self, context: click.Context) -> Any:
        return super().invoke(context) if context.command is self else self.own.invoke(context)

    def get_help(self, context: click.Context) -> str:
        return self.own.get_help(context)


def find(name: str, entry: Any) -> click.Command:
    """The command of an entry of the table."""
    if not isinstance(entry, str):
        return Work(name, *entry) if ":" in entry[0] else Table(name, *entry)
    module, _, function = entry.partition(":")
    found: click.Command = getattr(importlib.import_module(f".{module}", __package__), function)
    found.name = name
    return found


def command(name: str) -> click.Command:
    """One of the programs, as `stllm-run`."""
    found = find(name, COMMANDS[name])
    return found if isinstance(found, Work) else click.version_option(package_name="stllm-edge")(found)


def export(*arguments: Any, **settings: Any) -> Any:
    """stllm-export: from a checkpoint to a bundle."""
    return command("stllm-export")(*arguments, **settings)


def run(*arguments: Any, **settings: Any) -> Any:
    """stllm-run: a question about a scene and a clip."""
    return command("stllm-run")(*arguments, **settings)


def calib(*arguments: Any, **settings: Any) -> Any:
    """stllm-calib: number formats, chosen on real inputs."""
    return command("stllm-calib")(*arguments, **settings)


def bench(*arguments: Any, **settings: Any) -> Any:
    """stllm-bench: checkpoints, rooms and data of any size, and measurements on them."""
    return command("stllm-bench")(*arguments, **settings)
