"""A headless Chromium, spoken to by its own protocol over a pipe, and what is looked for in a page."""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-pipe", "--disable-dev-shm-usage",
)  # fmt: skip
# what is wrong with a page as it stands: texts over each other, cut off or outside, marks outside their picture
FAULTS = """
(() => {
  // not innerWidth: a phone zooms out of a page that is too wide
  const faults = [], wide = document.documentElement.clientWidth;
  const seen = element => element.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const say = (what, node) => faults.push(what + ': ' + node.textContent.trim().slice(0, 40));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), texts = [];
  for (let node; node = walker.nextNode();) {
    if (!node.textContent.trim() || !seen(node.parentElement) || node.parentElement.closest('title')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width && box.height) texts.push({node, box});
  }
  texts.sort((one, other) => one.box.top - other.box.top);
  texts.forEach(({node, box}, place) => {
    const inner = node.parentElement.closest('.scroll');
    if (!inner && (box.left < -0.5 || box.right > wide + 0.5)) say('outside the page', node);
    for (let next = place + 1; next < texts.length && texts[next].box.top < box.bottom; next++) {
      const other = texts[next].box;
      const over = Math.min(box.right, other.right) - Math.max(box.left, other.left);
      const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
      if (texts[next].node !== node && over > 1 && high > 2)
        say('over "' + texts[next].node.textContent.trim() + '"', node);
    }
  });
  for (const picture of document.querySelectorAll('svg:not(svg svg)')) {
    const frame = picture.getBoundingClientRect();
    if (!seen(picture)) continue;
    if (frame.width < 40 || frame.height < 10) { say('no picture', picture); continue; }
    for (const mark of picture.querySelectorAll('text, rect, line, circle, path')) {
      const box = mark.getBoundingClientRect();
      if (box.left < frame.left - 2 || box.right > frame.right + 2
          || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
        say('clipped <' + mark.tagName + '> ' + mark.getAttribute('class'), mark);
    }
  }
  for (const element of document.querySelectorAll('body *:not(svg *)'))
    if (seen(element) && !element.closest('.scroll, svg') && element.scrollWidth > element.clientWidth + 1
        && element.clientWidth && getComputedStyle(element).display !== 'inline') say('wider than its place', element);
  if (document.documentElement.scrollWidth > wide) faults.push('the page scrolls sideways');
  return faults;
})()
"""
PICTURES = """
[...document.querySelectorAll('svg:not(svg svg)')].filter(svg => svg.checkVisibility()).map(svg => {
  const box = svg.getBoundingClientRect();
  return [svg.getAttribute('class'), box.left, box.top + scrollY, box.width, box.height];
})
"""


class Browser:
    """One page of a running Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self._out = os.pipe()
        self._in, back = os.pipe()
        # it reads commands from descriptor 3 and answers on 4
        started = f'exec 3<&{theirs} 4>&{back}; exec "$@"'
        command = ["bash", "-c", started, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(theirs, back), stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(back)
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; what happens meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (said := self._read()).get("id") != number:
            self.events.append(said)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        return said["result"]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.call(method, self._session, **parameters)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has gone")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int, scheme: str = "light", media: str = "") -> None:
        """Load a page as a screen of that width, or paper, shows it, and unfold what is folded."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self.look(scheme, media)
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        self.value("document.querySelectorAll('details').forEach(part => part.open = true)")

    def look(self, scheme: str, media: str = "") -> None:
        """Change the colours that are wished for, or the medium, of the page that is open."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)

    def value(self, expression: str) -> Any:
        """What an expression gives in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def faults(self) -> list[str]:
        """What is wrong with how the page stands."""
        return self.value(FAULTS)

    def said(self) -> list[str]:
        """Errors and warnings of the console, and requests for anything but the page and what it holds itself."""
        found = []
        for event in self.events:
            method, about = event.get("method"), event.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                found.append(f"console: {json.dumps(about)[:200]}")
            elif method == "Log.entryAdded":
                found.append(f"log: {about['entry']['text']}")
            elif method == "Network.requestWillBeSent" and about["request"]["url"].startswith(("http", "ws", "//")):
                found.append(f"request: {about['request']['url']}")
        return found

    def picture(self, scale: float = 1.0) -> np.ndarray:
        """The whole page, [height, width, 3] uint8."""
        wide, high = self.value("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": wide, "height": high, "scale": scale}
        settings = {"format": "jpeg", "quality": 90, "captureBeyondViewport": True, "optimizeForSpeed": True}
        taken = self.ask("Page.captureScreenshot", clip=clip, **settings)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB"))

    def empty_pictures(self) -> list[str]:
        """Pictures that show next to nothing: hardly anything but their ground."""
        scale = 0.5
        whole, found = self.picture(scale), []
        for name, *box in self.value(PICTURES):
            left, top, width, height = (round(scale * side) for side in box)
            shown = whole[top : top + height, left : left + width].reshape(-1, 3).astype(int)
            ground = np.median(shown, axis=0) if len(shown) else 0
            if not len(shown) or (np.abs(shown - ground).max(axis=1) > 24).mean() < 0.002:
                found.append(f"{name}: nothing to see")
        return found

    def close(self) -> None:
        """End it."""
        try:
            self.call("Browser.close")
        finally:
            self._process.wait(10)
            os.close(self._out)
            os.close(self._in)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium on this machine; looked for {', '.join(NAMES)}")
    found = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()
