"""Headless Chromium, driven by chromedriver through W3C WebDriver.

Owns:   the processes of driver and browser, and the browser's profile, which is empty.
Source: W3C WebDriver (the commands), and chromedriver's own for the console log.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in JSON, by the standard
START_S = 60.0
COMMAND_S = 60.0
PATIENCE_S = 30.0
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--mute-audio", "--autoplay-policy=no-user-gesture-required", "--window-size=1440,1000",
)  # fmt: skip


class WebDriverError(AssertionError):
    """An error that the driver answered."""


class Browser:
    def __init__(self, profile: Path, *arguments: str) -> None:
        for program in ("chromium", "chromedriver"):
            assert shutil.which(program), f"{program} is missing: scripts/test installs it"
        profile.mkdir(parents=True)
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._session = ""
        try:
            self._base = f"http://127.0.0.1:{self._port()}"
            options = {
                "binary": shutil.which("chromium"),
                "args": [*ARGUMENTS, f"--user-data-dir={profile}", *arguments],
            }
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            started = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{started['sessionId']}"
        except BaseException:
            self.close()
            raise

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise AssertionError("chromedriver did not start")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, data, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=COMMAND_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                value = json.load(error)["value"]
            raise WebDriverError(f"{value['error']}: {value['message']}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(COMMAND_S)
            if self._driver.stdout is not None:
                self._driver.stdout.close()

    # ------------------------------------------------------------------ commands
    def go(self, url: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function's body, run in the page."""
        return self._call(
            "POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)}
        )

    def find(self, selector: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        """As a person does: the element has to be seen, and nothing in front of it."""
        self._call("POST", f"{self._session}/element/{self.find(selector)}/click", {})

    def text(self, selector: str) -> str:
        """The text that is shown."""
        return str(self._call("GET", f"{self._session}/element/{self.find(selector)}/text"))

    def until(self, what: str, script: str, *arguments: Any, timeout_s: float = PATIENCE_S) -> Any:
        """Run the script until its value is true, and return it."""
        return until(what, lambda: self.run(script, *arguments), timeout_s)

    def until_text(self, selector: str, part: str) -> str:
        script = "const e = document.querySelector(arguments[0]); return e && !e.hidden && e.textContent.includes(arguments[1]) && e.textContent"
        return str(self.until(f"{part!r} in {selector}", script, selector, part))

    def console(self) -> list[str]:
        """What the page has written to the console, and what the browser complained of, since the last call."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [f"{entry['level']} {entry['message']}" for entry in entries]

    def resize(self, width: int, height: int) -> None:
        self._call("POST", f"{self._session}/window/rect", {"width": width, "height": height})

    def picture(self) -> bytes:
        """A PNG of the window's content."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))


def until(what: str, done: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.05)
    return found
