"""The interactive form of `stllm-run`: questions line by line, each answer one that can be ended."""

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import click

from .answer import Answer, View
from .console import Progress
from .control.events import Event, StageStarted, Text, to_json
from .dialogue.conversation import Conversation
from .errors import BadInput, Cancelled, StllmError
from .fit.reading import Reading
from .options import Options, Recording, Request
from .request import read, report, tell_end
from .session import Session

__all__ = ["chat"]

HELP = """/scene PATH   another scene        /reset   forget what was said
/video PATH   another clip         /stats   what the last answer took
/help         these commands       /quit    leave; Ctrl-C ends an answer, Ctrl-D leaves"""


def chat(bundle: Path, recording: Recording, request: Request, options: Options, *, as_json: bool, quiet: bool) -> None:
    """Answer questions from standard input until it ends.

    Args:
        bundle: the bundle's folder.
        recording: scene and clip to begin with.
        request: how questions are answered.
        options: how to run.
        as_json: print events, and a report of each answer, as JSON, one a line.
        quiet: show no progress.
    """
    request.about("?").check()
    with Session(bundle, options) as session:
        session.prepare()
        talk = Talk(session, recording, request, as_json, quiet)
        talk.look()
        for line in lines(sys.stdin, as_json):
            try:
                if not talk.take(line):
                    break
            except StllmError as error:
                talk.tell_error(error)


def lines(source: TextIO, as_json: bool) -> Iterator[str]:
    """Lines that are not empty; from a terminal, with a prompt and the usual keys."""
    on_terminal = source.isatty() and not as_json
    if on_terminal:
        # line editing and the arrow keys, where Python was built with them
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
    while True:
        try:
            line = input("> ") if on_terminal else source.readline()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo("(Ctrl-D leaves)", err=True)
            continue
        if not line and not on_terminal:
            return
        if line.strip():
            yield line.strip()


class Talk:
    """A session with its current scene, clip and conversation."""

    def __init__(self, session: Session, recording: Recording, request: Request, as_json: bool, quiet: bool):
        """Begin with nothing looked at."""
        self._session, self._recording, self._request = session, recording, request
        self._as_json, self._progress = as_json, Progress(quiet)
        self._conversation: Conversation | None = None
        self._last: Answer | None = None

    def look(self, **changed: Any) -> None:
        """Look at scene and clip, of which one may be another; what was there stays where that fails."""
        recording = replace(self._recording, **changed)
        reading = Reading.of(recording.scale, recording.intrinsics_of)
        scene, clip = read(recording)
        frames, most = self._request.frames, self._request.max_new_tokens

        def work(tell: Callable[[Event], None]) -> View:
            return self._session.look(scene, clip, frames=frames, max_new_tokens=most, reading=reading, listen=tell)

        view = self._wait(work)
        if self._conversation is not None:
            self._conversation.close()
        self._recording, self._conversation = recording, self._session.converse(view)

    def take(self, line: str) -> bool:
        """Do what a line says; false where it says to leave."""
        command, _, argument = line.partition(" ")
        if command in ("/scene", "/video"):
            if not argument.strip():
                raise BadInput(f"{command}: give a path with it")
            self.look(**{command[1:]: Path(argument.strip())})
        elif command == "/reset":
            self._talk.reset()
        elif command == "/stats":
            self._tell_stats()
        elif command == "/help":
            click.echo(HELP, err=True)
        elif command in ("/quit", "/exit"):
            return False
        elif command.startswith("/"):
            raise BadInput(f"{command}: unknown; /help lists what there is")
        else:
            self._answer(line)
        return True

    @property
    def _talk(self) -> Conversation:
        if self._conversation is None:
            raise BadInput("nothing has been looked at; name a scene and a clip with /scene and /video")
        return self._conversation

    def _answer(self, question: str) -> None:
        talk, how = self._talk, self._request.how()

        def work(tell: Callable[[Event], None]) -> Answer:
            answer = talk.ask(question, listen=tell, **how)
            for _ in answer:
                pass
            return answer

        self._last = self._wait(work)
        if self._as_json:
            self._print({"event": "report", "question": question, **report(self._session, self._last)})
        else:
            click.echo()
        tell_end(self._last)

    def _wait(self, work: Callable[[Callable[[Event], None]], Any]) -> Any:
        """Let another thread work, and show what it tells; Ctrl-C ends the work, and is Cancelled here.

        A signal reaches this thread only between two lines of Python, of which the language model runs none.
        """
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run() -> None:
            try:
                told.put((work(told.put), None))
            except BaseException as error:  # raised again in the thread that waits
                told.put((None, error))

        threading.Thread(target=run, name="answer", daemon=True).start()
        ending, event = False, None
        with self._progress.stage("") as show:
            while not isinstance(event, tuple):
                try:
                    event = told.get()
                    if ending:
                        # the first call may have come before there was a question to end
                        self._session.cancel()
                    if not isinstance(event, tuple):
                        self._show(event, show)
                except KeyboardInterrupt:
                    ending = True
                    self._session.cancel()
        result, error = event
        if error is not None:
            raise error
        return result

    def _show(self, event: Event, show: Callable[[str], None]) -> None:
        if self._as_json:
            self._print(to_json(event))
        elif isinstance(event, StageStarted):
            show(event.stage)
        elif isinstance(event, Text):
            show("")
            click.echo(event.text, nl=False)

    def tell_error(self, error: StllmError) -> None:
        """Say what went wrong in one line; the session goes on."""
        if self._as_json:
            self._print({"event": "error", "cancelled": isinstance(error, Cancelled), "message": str(error)})
        else:
            click.echo(f"\n{error}" if isinstance(error, Cancelled) else str(error), err=True)

    def _tell_stats(self) -> None:
        if self._last is None:
            raise BadInput("/stats: nothing was answered yet")
        told = report(self._session, self._last)
        if self._as_json:
            self._print({"event": "stats", **told})
            return
        for stage, spent in told["milliseconds"].items():
            known = told["cache"].get(stage)
            reused = f"  {known['hits']} known, {known['misses']} computed" if known else ""
            click.echo(f"{stage:<9}{spent:>10.1f} ms{reused}", err=True)

    def _print(self, told: dict[str, Any]) -> None:
        click.echo(json.dumps(told))
