"""Write docs/commands.md from the commands' own help texts; `make docs` runs it."""

from collections.abc import Iterator
from pathlib import Path

import click
from stllm_edge import cli

COMMANDS = {"stllm-export": cli.export, "stllm-run": cli.run, "stllm-bench": cli.bench}
TITLE = "# Commands\n\nGenerated from the commands' help by `make docs`.\n"


def sections(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    """The help of a command and of those below it."""
    settings = {"max_content_width": 110, "terminal_width": 110, **command.context_settings}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from sections(child, command.commands[child], context)


def generate() -> str:
    """The whole page."""
    return "\n".join([TITLE, *(part for name, command in COMMANDS.items() for part in sections(name, command))])


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(generate(), encoding="utf-8")
