"""`python -m tests.contract.hostile_campaign [N] [SEED]`: N random answers and listings, a million by default.

Most go to the store's own reader of answers (status, bounds, XML, what is believed), some through boto3 and all
of the store, some pages through the engine's tree, and a few by sockets. Prints what it did, and ends with 1 at
the first that is no answer and no StoreError, that is believed and wrong, or if memory grew by more than 64 MB.
"""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import HTTPClientError

from r2fs.model.errors import MalformedAnswer, R2fsError, StoreError
from r2fs.model.keys import printable
from r2fs.model.ports import SystemClock
from r2fs.model.records import Kind, ListPage
from r2fs.store.s3.client import _Receiver
from r2fs.store.s3.listing import Asked, not_deleted, page_of
from r2fs.store.s3.store import S3Store
from r2fs.store.s3.wire import Answer
from r2fs.store.s3.xml import Malformed
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.support.hostile import VERBS, Answers, Raw, RawServer, all_good, but, store_of
from tests.support.hostile_answers import answer_to, judge, pages
from tests.support.listings import ScriptedListings
from tests.support.servers import Endpoint

OPERATIONS = {
    "list": "ListObjectsV2", "head": "HeadObject", "get": "GetObject", "range": "GetObject", "put": "PutObject",
    "create": "CreateMultipartUpload", "part": "UploadPart", "copy_part": "UploadPartCopy", "copy": "CopyObject",
    "complete": "CompleteMultipartUpload", "abort": "AbortMultipartUpload", "delete": "DeleteObject",
    "delete_many": "DeleteObjects",
}  # fmt: skip
GROWS = 64 << 20
BY_BOTO, BY_ENGINE, BY_SOCKET = 40, 20, 5_000  # one of so many goes that way
BY_SWEEP = 1_000  # the engine has no threads here: after so many, what it does each minute


class Failed(Exception):
    pass


class Campaign:
    def __init__(self, base: Path, seed: int) -> None:
        self.random = Random(seed)
        self.counts: Counter[str] = Counter()
        self.store, self.session = store_of(all_good)
        self.prepared = Answers(self._prepared)
        self.receiver = _Receiver(SimpleNamespace(http_session=self.prepared), 60.0)
        self.raw = Raw()
        self.bucket = random_listings(self.random)
        self.clock = ManualClock()
        self.engine = Engine(base, self.bucket, self.clock, threads=False, freshness_s=1.0)

    def _prepared(self, request: Any) -> Raw:
        return self.raw

    # ---- the ways
    def by_reader(self, verb: str) -> None:
        """As the store reads it, without boto3's part: LIST, and deletes, to their values."""
        self.raw = raw = answer_to(self.random, verb)
        self.prepared.sent.clear()
        request: Any = SimpleNamespace(
            method=VERBS[verb].method,
            url="http://127.0.0.1:9/bucket",
            headers={},
            body=None,
            stream_output=False,
        )
        done: object
        try:
            with Answer() as answer:
                response = self.receiver(request, f"before-send.s3.{OPERATIONS[verb]}")
                if verb == "list" and response.status_code == 200:
                    done = [info.key for info in page_of(answer.read(), Asked("bucket", "takes/")).objects]
                elif verb == "delete_many" and response.status_code == 200:
                    done = dict(not_deleted(answer.read(), ["takes/07.wav", "takes/08.wav"]))
                else:
                    self.counts["to boto3"] += 1
                    return
        except (Malformed, HTTPClientError) as none:
            done = MalformedAnswer(printable(str(none)))
        self._judge(verb, raw, done)

    def by_boto(self, verb: str) -> None:
        raw = answer_to(self.random, verb)
        self.session.answering = but(verb, raw)
        self.session.sent.clear()
        done: object
        try:
            done = VERBS[verb].call(self.store)
        except StoreError as error:
            done = error
        self._judge(verb, raw, done)

    def by_engine(self) -> None:
        """A directory of the tree, whatever its listings are."""
        self.bucket.lists = 0
        self.clock.advance(self.random.choice((0.1, 2.0, 6.0)))
        waiting = [""]
        while waiting and self.bucket.lists < 20:
            path = waiting.pop()
            try:
                entries = list(self.engine.fs.readdir(self.engine.caller, self.engine.entry(path).ino))
            except R2fsError:
                self.counts["engine: refused"] += 1
                continue
            self.counts["engine: shown"] += 1
            for entry in entries:
                if not entry.name or "/" in entry.name or "\0" in entry.name or entry.name in (".", ".."):
                    raise Failed(f"the engine shows {entry.name!r}")
                if entry.kind is Kind.DIRECTORY:
                    waiting.append(f"{path}/{entry.name}")
        if self.bucket.lists > 200:
            raise Failed(f"{self.bucket.lists} LISTs for two directories")

    def by_socket(self, verb: str) -> None:
        raw = answer_to(self.random, verb)
        if VERBS[verb].method == "HEAD":
            raw = Raw(raw.status, raw.headers)

        def told(line: str) -> list[bytes]:
            heads = [f"{n}: {v}" for n, v in raw.headers if "\n" not in v]
            if not any(n.lower() == "content-length" for n, _ in raw.headers):
                heads.append(f"Content-Length: {len(raw.body)}")
            head = "\r\n".join([f"HTTP/1.1 {raw.status} Odd", *heads, "Connection: close", "", ""])
            return [head.encode("latin-1", "replace"), raw.body]

        with RawServer(told) as server:
            store = S3Store(
                replace(Endpoint(server.url).settings(), request_timeout_s=2.0), clock=SystemClock()
            )
            try:
                done = VERBS[verb].call(store)
            except StoreError as error:
                done = error
            finally:
                store.close()
        if not isinstance(done, StoreError) and raw.status >= 300 and verb not in ("delete", "abort"):
            raise Failed(f"{verb}: believed a status {raw.status}")

    def _judge(self, verb: str, raw: Raw, done: object) -> None:
        wrong = judge(verb, raw, done)
        if wrong:
            raise Failed(f"{verb}: {wrong}: {raw}")
        self.counts["refused" if isinstance(done, StoreError) else "believed, and right"] += 1

    def one(self, number: int) -> None:
        verb = self.random.choice(list(VERBS))
        if number % BY_SOCKET == 0:
            self.counts["sockets"] += 1
            self.by_socket(verb)
        elif number % BY_BOTO == 0:
            self.counts["boto3 and the store"] += 1
            self.by_boto(verb)
        elif number % BY_ENGINE == 1:
            self.counts["engine"] += 1
            self.by_engine()
            if number % BY_SWEEP == 1:
                self.engine.sweep()
        else:
            self.counts["reader"] += 1
            self.by_reader(self.random.choice(("list", "list", verb)))


def random_listings(random: Random) -> ScriptedListings:
    """A bucket that answers each LIST with a random page."""

    def answer(prefix: str, token: str | None) -> ListPage:
        try:
            return pages(random, prefix, token)
        except Malformed as none:
            raise MalformedAnswer(f"{prefix}: {none}") from none

    return ScriptedListings(answer)


def resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(count: int, seed: int, base: Path) -> Counter[str]:
    """Raises what went wrong."""
    campaign = Campaign(base, seed)
    begun = time.monotonic()
    warm = 0
    for number in range(1, count + 1):
        try:
            campaign.one(number)
        except BaseException:
            print(f"answer {number} of seed {seed}", file=sys.stderr)
            raise
        if number == min(20_000, count // 10):
            warm = resident()
        if number % 100_000 == 0:
            print(f"{number} in {time.monotonic() - begun:.0f} s, {resident() >> 20} MB", flush=True)
    grown = resident() - warm
    campaign.counts["MB more"] = grown >> 20
    campaign.engine.stop()
    campaign.store.close()
    if grown > GROWS:
        raise Failed(f"{grown >> 20} MB more than at the beginning")
    return campaign.counts


def main() -> int:
    logging.disable(logging.ERROR)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    with tempfile.TemporaryDirectory() as base:
        counts = run(count, seed, Path(base))
    print(f"{count} answers, seed {seed}: nothing wrong. {dict(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
