"""An OpenAI-compatible chat endpoint: one request, repeated while the server is busy."""

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from ...runtime.errors import BadInput

__all__ = ["Endpoint"]

LOG = logging.getLogger(__name__)
URL = re.compile(r"https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?(?:/[!-~]*)?")
PATH = "/chat/completions"
# time-outs, conflicts, limits on rates: refusals that may pass, unlike those of other 4xx codes
BUSY = {408, 409, 425, 429}
LONGEST_WAIT = 60.0
SHOWN = 200


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another host."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Endpoint:
    """Chat completions at a URL.

    Args:
        url: base, such as http://localhost:8080/v1.
        key: sent as a bearer token if not empty; never logged.
        timeout: seconds that one try may take.
        tries: how often a request is sent when the server is busy or out of reach.
        wait: seconds before the second try; doubled before each further one, unless the server names a time.
        sleep: waits.

    Raises:
        BadInput: the URL is not one of http or https, or the key cannot be sent.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        timeout: float = 60.0,
        tries: int = 6,
        wait: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not URL.fullmatch(url):
            raise BadInput(f"--endpoint {url}: expected a URL such as http://localhost:8080/v1")
        if not all("!" <= letter <= "~" for letter in key):
            raise BadInput("the API key holds a character that no key has; set it again")
        self.url = url.rstrip("/") if url.rstrip("/").endswith(PATH) else url.rstrip("/") + PATH
        self.key, self.timeout, self.tries, self.wait, self.sleep = key, timeout, tries, wait, sleep
        self.opener = urllib.request.build_opener(NoRedirects)

    @classmethod
    def with_key_from(cls, variable: str, url: str, *, timeout: float, tries: int) -> "Endpoint":
        """One whose key an environment variable holds; without the variable it has none."""
        return cls(url, os.environ.get(variable, "").strip(), timeout=timeout, tries=tries)

    def complete(self, body: dict[str, Any]) -> str:
        """The reply's text.

        Raises:
            BadInput: the server refuses, is silent or busy at every try, or answers something else.
        """
        for attempt in range(self.tries):
            try:
                return self.send(body)
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {self.shown(content_of(error))}"
                if error.code not in BUSY and error.code < 500:
                    raise BadInput(f"--endpoint {self.url}: {problem}") from None
                pause = named_wait(error.headers.get("Retry-After"))
            # an HTTPError is an OSError, so it stands first; an HTTPException (a server closed early) is none
            except (OSError, http.client.HTTPException) as error:
                problem, pause = self.shown(str(getattr(error, "reason", error) or type(error).__name__)), None
            if attempt + 1 < self.tries:
                pause = min(self.wait * 2**attempt if pause is None else pause, LONGEST_WAIT)
                LOG.info("%s: %s; trying again in %.1f s", self.url, problem, pause)
                self.sleep(pause)
        raise BadInput(f"--endpoint {self.url}: no answer in {self.tries} tries ({problem}); run again to resume")

    def send(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with self.opener.open(request, timeout=self.timeout) as response:
            content = response.read()
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError):
            raise BadInput(f"--endpoint {self.url}: not a chat completion: {self.shown(content)}") from None

    def shown(self, text: bytes | str) -> str:
        """A server's words, short, and without the key if it echoes that."""
        words = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
        words = words.replace(self.key, "***") if self.key else words
        return " ".join(words.split())[:SHOWN]


def content_of(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def named_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After header; None for a date or for none."""
    return float(header) if header is not None and header.strip().isdigit() else None
