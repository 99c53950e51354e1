"""`r2fs ui` in a browser, over real mounts: transfers, the map, takes that are heard and kept, and daemons that are gone."""

from __future__ import annotations

import math
import os
import signal
import stat
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.mount.daemons import REPO, BucketMount, until
from tests.support.browser import Browser
from tests.support.faulty import FaultyProxy
from tests.support.strict import StrictR2

LONG_S = 60.0
MIB = 1 << 20
RATE = 8000
ODD = "<img src=x onerror=window.injected=1>.wav"
QUOTES = "\"quotes\" & 'more' \u202eexe\x07.wav"
SCRIPT = "<script>window.injected=2<"  # a directory, with a file `script>`


def tone(path: Path, seconds: float, hertz: float, pulse: float = 1.0, rate: int = RATE) -> None:
    """A tone that swells `pulse` times a second."""
    frames = bytearray()
    for at in range(int(rate * seconds)):
        t = at / rate
        swell = abs(math.sin(math.pi * pulse * t)) ** 1.5 * (0.35 + 0.6 * abs(math.sin(0.7 * t + hertz)))
        frames += struct.pack("<h", int(30000 * swell * math.sin(2 * math.pi * hertz * t)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(frames))


@contextmanager
def page_of(
    mount: BucketMount, *words: object, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that `r2fs ui` prints, and its process."""
    child = subprocess.Popen(
        [sys.executable, "-m", "r2fs", "ui", *map(str, words)],
        env={**mount._environment, **variables},
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip(), child
    finally:
        child.terminate()
        child.wait(30)
        if child.stdout is not None:
            child.stdout.close()


@pytest.fixture(scope="module")
def proxy(r2: StrictR2) -> Iterator[FaultyProxy]:
    with FaultyProxy(r2.endpoint.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pair(
    r2: StrictR2, proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BucketMount, BucketMount]]:
    """Anna, over a line that may be slow, and Bert."""
    made = []
    run_dir = tmp_path_factory.mktemp("run")  # one page shows both
    try:
        for host, url in (("anna", proxy.url), ("bert", None)):
            base = tmp_path_factory.mktemp(host)
            mount = BucketMount(
                base, "auto", r2.endpoint, "", url, host=host, multipart_threshold="5MiB", part_size="5MiB",
                part_threads="1", take_over="0", run_dir=run_dir, upload_delay="2s" if host == "bert" else "200ms",
            )  # fmt: skip
            mount.allowed = ["another host wrote it first"]
            made.append(mount)
            mount.start()
        yield made[0], made[1]
    finally:
        for mount in made:
            mount.end()
    assert [line for mount in made for line in mount.complaints()] == []


@pytest.fixture(scope="module")
def url(pair: tuple[BucketMount, BucketMount]) -> Iterator[str]:
    with page_of(pair[0]) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Browser]:
    """The page, shown anew. A complaint of the browser fails the test: of a policy, an error, a file that is missing."""
    browser.go("about:blank")
    browser.go(url)
    browser.until_text("#health", "online")
    yield browser
    assert browser.run("return window.injected") is None
    assert browser.console() == []


def conflict(pair: tuple[BucketMount, BucketMount], name: str) -> dict[str, bytes]:
    """Both hosts record one take; the contents by host."""
    anna, bert = pair
    for mount, seconds in ((bert, 1.5), (anna, 2.0)):
        tone(mount.path / name, seconds, 40.0 * len(name))
    anna.flush(LONG_S)
    bert.flush(LONG_S)
    until("the conflict on anna's host", lambda: name in str(os.listdir(anna.path)) and anna.status()["queue"]["conflicts"])  # fmt: skip
    (copy,) = anna.status()["queue"]["conflicts"]
    return {"anna": (anna.path / name).read_bytes(), "bert": (anna.path / copy).read_bytes()}


def take(number: int) -> str:
    return f"#takes .take:nth-child({number})"


def test_one_of_two_takes_is_heard_and_kept(page, pair, r2):
    anna, _ = pair
    recorded = conflict(pair, "chorus.wav")
    page.until_text("#conflicts", "chorus.wav")
    assert "has the name now" in page.text(take(1))
    assert "of bert" in page.text(take(2))
    # Both are on this host, and drawn; each plays, by ranges.
    for number in (1, 2):
        page.until(
            "a waveform",
            "const c = document.querySelector(arguments[0]); return c.width > 0 && c.getContext('2d').getImageData(0, 0, c.width, c.height / 2 - 4).data.some((v) => v)",
            f"{take(number)} canvas",
        )
    page.run("document.querySelector(arguments[0]).play()", f"{take(1)} audio")
    page.until("sound of A", "return document.querySelector(arguments[0]).currentTime > 0.1", f"{take(1)} audio")  # fmt: skip
    page.run("document.querySelector(arguments[0]).play()", f"{take(2)} audio")
    page.until("sound of B", "return document.querySelector(arguments[0]).currentTime > 0.2", f"{take(2)} audio")  # fmt: skip
    assert page.run("return document.querySelector(arguments[0]).paused", f"{take(1)} audio"), "one at a time"

    page.click(f"{take(2)} .keep")
    assert "chorus.wav will be this take" in page.text("#choice-text")
    page.click("#choice-cancel")
    assert (anna.path / "chorus.wav").read_bytes() == recorded["anna"], "nothing without a confirmation"
    page.click(f"{take(2)} .keep")
    page.click("#choice-keep")
    page.until_text("#notice", "The other take is chorus (other take).wav")
    page.until("no conflict", "return document.querySelector('#conflicts').hidden")
    assert {name: (anna.path / name).read_bytes() for name in os.listdir(anna.path)} == {
        "chorus.wav": recorded["bert"],
        "chorus (other take).wav": recorded["anna"],
    }
    anna.flush(LONG_S)
    assert r2.bucket.contents() == {
        "chorus.wav": recorded["bert"],
        "chorus (other take).wav": recorded["anna"],
    }


def test_the_other_take_is_deleted_if_that_is_chosen(page, pair, r2):
    anna, _ = pair
    recorded = conflict(pair, "verse.wav")
    page.until_text("#conflicts", "verse.wav")
    page.click(f"{take(1)} .keep")
    page.click("#choice input[value=delete]")
    assert page.text("#choice-keep") == "Keep take A, delete take B"
    page.click("#choice-keep")
    page.until_text("#notice", "Deleted: verse (conflict of bert")
    assert (anna.path / "verse.wav").read_bytes() == recorded["anna"]
    anna.flush(LONG_S)
    found = r2.bucket.contents()
    assert found["verse.wav"] == recorded["anna"]
    assert recorded["bert"] not in found.values()


def test_an_upload_is_seen_on_its_way(page, pair, proxy):
    anna, _ = pair
    proxy.latency_s = 1.0
    try:
        (anna.path / "long.wav").write_bytes(os.urandom(48 * MIB))
        bar = "#transfers .moves [role=progressbar]"
        page.until_text("#transfers", "long.wav")
        page.until("a part of it", "const b = document.querySelector(arguments[0]); return b && 0 < b.ariaValueNow && b.ariaValueNow < 100", bar)  # fmt: skip
        assert page.text("#queue-left") == "1 file"
    finally:
        proxy.latency_s = 0.0
    page.until_text("#queue-left", "All sent")
    page.until_text("#transfers", "Everything is in the bucket.")
    page.until(
        "the chart of requests", "return document.querySelector('#request-chart .line').getAttribute('d')"
    )
    page.until_text("#cost-month", "$")


def test_names_are_text_and_directories_open(page, pair, r2):
    anna, bert = pair
    (bert.path / SCRIPT).mkdir()
    (bert.path / SCRIPT / "script>").write_bytes(b"x" * 1000)
    (bert.path / SCRIPT / "deep").mkdir()
    (bert.path / SCRIPT / "deep" / "cold.wav").write_bytes(b"x" * 3000)
    for name in (ODD, QUOTES):
        (bert.path / name).write_bytes(b"x" * 2000)
    bert.flush(LONG_S)
    until("the names on anna's host", lambda: {ODD, QUOTES, SCRIPT} <= set(os.listdir(anna.path)))
    (anna.path / ODD).read_bytes()
    page.until_text("#names", ODD)
    page.until_text("#names", "\"quotes\" & 'more' \\u202eexe\\x07.wav")
    assert page.run("return document.querySelectorAll('main img, main script').length") == 0
    row = "return [...document.querySelectorAll('#names tr')].find((r) => r.textContent.includes(arguments[0])).textContent"
    assert "100 %" in page.run(row, ODD)
    assert " 0 %" in page.run(row, "quotes").replace("KiB", " ")

    page.run(
        "[...document.querySelectorAll('#names button')].find((b) => b.textContent.includes('<script>')).click()"
    )
    page.until_text("#crumbs", SCRIPT)
    page.until_text("#names", "script>")  # opening it has listed it
    page.until_text("#names", "deep/")
    page.run("history.back()")
    page.until_text("#names", ODD)


def test_each_mount_has_its_own_figures(page, pair):
    _, bert = pair
    page.until_text("#cost-month", "$")
    page.until_text("#mounts", str(bert.path))
    switched = """
        const tab = [...document.querySelectorAll('#mounts a')].find((a) => a.textContent === arguments[0]);
        const figures = () => [...document.querySelectorAll('.figure .value')].map((value) => value.textContent);
        return new Promise((done) => {
            addEventListener('hashchange', () => done(figures()), { once: true });
            tab.click();
        });
    """
    assert page.run(switched, str(bert.path)) == ["–"] * 4
    page.until_text("#where", str(bert.path))
    page.until_text("#cost-month", "$")


def test_a_browser_is_opened_without_the_token_in_its_arguments(pair, tmp_path):
    anna, _ = pair
    script, seen = tmp_path / "browser", tmp_path / "seen"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}.new\nmv {seen}.new {seen}\n')
    script.chmod(0o755)
    with page_of(anna, anna.path, "--open", BROWSER=str(script), DISPLAY=":1") as (url, _):
        until("the browser", seen.exists)
        (address,) = seen.read_text().split()
        token = urlsplit(url).path.strip("/")
        assert (len(token) > 40, token in address) == (True, False)
        launcher = Path(urlsplit(address).path)
        assert stat.S_IMODE(launcher.stat().st_mode) == 0o600
        assert f'content="0;url={url}"' in launcher.read_text()


def test_what_r2fs_ui_refuses_to_begin(pair, url, tmp_path):
    anna, _ = pair
    taken = anna.r2fs("ui", "--port", urlsplit(url).port)
    assert taken.returncode == 1
    assert "cannot be used (Address already in use): choose another by --port" in taken.stderr
    assert anna.r2fs("ui", tmp_path).returncode == 8


def test_a_daemon_that_hangs_or_is_gone_is_named_and_the_page_recovers(browser, pair):
    anna, _ = pair
    with page_of(anna, anna.path) as (url, process):
        browser.go("about:blank")
        browser.go(url)
        browser.until_text("#health", "online")
        os.kill(anna.pid, signal.SIGSTOP)
        try:
            browser.until_text("#alarm", "has been silent for 3 s")
            assert "Shown is the state of" in browser.text("#alarm")
        finally:
            os.kill(anna.pid, signal.SIGCONT)
        browser.until_text("#health", "online")
        assert browser.run("return document.querySelector('#alarm').hidden")
        anna.child.kill()
        anna.wait()
        browser.until_text("#alarm", f"the daemon of {anna.path} has gone: mount again")
        process.terminate()
        process.wait(30)
        browser.until_text("#alarm", "r2fs ui has ended: start it again")
        browser.console()  # requests without an answer are complained of
