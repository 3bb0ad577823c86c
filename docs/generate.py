"""Write docs/commands.md from the commands' own help texts; `make docs` runs it."""

from collections.abc import Iterator
from pathlib import Path

import click
from stllm_edge import cli

TITLE = "# Commands\n\nGenerated from the commands' help by `make docs`.\n"


def sections(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    """The help of a command and of those below it."""
    settings = {"max_content_width": 110, "terminal_width": 110, **command.context_settings}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from sections(child, found, context)


def generate() -> str:
    """The whole page."""
    return "\n".join([TITLE, *(part for name in cli.COMMANDS for part in sections(name, cli.command(name)))])


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(generate(), encoding="utf-8")
