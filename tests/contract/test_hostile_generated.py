"""Random answers, a few hundred of each verb: `python -m tests.contract.hostile_campaign` does a million."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2fs.model.errors import StoreError
from r2fs.store.s3.store import S3Store
from tests.contract.hostile_campaign import Campaign, run
from tests.support.hostile import VERBS, Answers, all_good, but, store_of
from tests.support.hostile_answers import answer_to, judge


@pytest.fixture(scope="module", params=["auto", "boto3"])
def hostile(request: pytest.FixtureRequest) -> Iterator[tuple[S3Store, Answers]]:
    store, session = store_of(all_good, transport=request.param)
    yield store, session
    store.close()


@pytest.mark.expect_warnings('Failed to parse the "Expires"')  # botocore's; what is stored is kept as it is
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False), verb=st.sampled_from(list(VERBS)))
def test_whatever_is_answered(hostile: tuple[S3Store, Answers], random: Random, verb: str):
    """Right, or a StoreError in a sentence; nothing else comes out, and nothing wrong is believed."""
    store, session = hostile
    raw = answer_to(random, verb)
    session.answering = but(verb, raw)
    session.sent.clear()
    try:
        done = VERBS[verb].call(store)
    except StoreError as error:
        done = error
    assert not judge(verb, raw, done)
    assert len(session.sent) <= 8


SPELLINGS = (b"up-1", b"up<?x?>-1", b"up<!-- -->-1", b"<![CDATA[up]]>-1", b"&#117;p&#x2d;1")


@pytest.mark.parametrize("spelled", SPELLINGS, ids=bytes.decode)
def test_the_judge_reads_what_an_answer_says_as_xml(spelled: bytes):
    answer = replace(VERBS["create"].good, body=VERBS["create"].good.body.replace(b"up-1", spelled))
    assert not judge("create", answer, "up-1")
    assert judge("create", answer, "up-2")


@pytest.mark.expect_warnings
def test_a_short_campaign(tmp_path: Path):
    """The store's reader, boto3, and the engine's tree."""
    counts = run(1_000, 7, tmp_path)
    assert counts["believed, and right"] > 100
    assert counts["refused"] > 100
    assert counts["engine: shown"] > 20


@pytest.mark.expect_warnings
def test_the_campaign_keeps_no_record_of_its_requests(tmp_path: Path):
    """Its own memory would grow with their number, and hide the growth that it looks for."""
    campaign = Campaign(tmp_path, 7)
    for number in range(1, 401):
        campaign.one(number)
    campaign.engine.stop()
    campaign.store.close()
    assert len(campaign.prepared.sent) + len(campaign.session.sent) <= 8


@pytest.mark.long
@pytest.mark.expect_warnings
@pytest.mark.timeout(7200)
def test_a_million(tmp_path: Path):
    run(1_000_000, 20261129, tmp_path)
