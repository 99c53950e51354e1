"""The licences of what r2fs imports: told by the packages, and looked at before each commit."""

from __future__ import annotations

from email.message import Message

import pytest

from scripts.lib import licences


class Package:
    requires: tuple[str, ...] = ()

    def __init__(self, *fields: tuple[str, str]) -> None:
        self.metadata = Message()
        for name, value in fields:
            self.metadata[name] = value


def test_every_dependency_is_allowed(capsys):
    assert licences.main() == 0
    shown = capsys.readouterr().out
    for name in ("boto3", "botocore", "urllib3", "click", "rich", "diskcache"):
        assert f" {name} " in shown


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ([("License-Expression", "MIT")], True),
        ([("License-Expression", "GPL-3.0-only OR MIT")], True),
        ([("License-Expression", "GPL-3.0-only AND MIT")], False),
        ([("License-Expression", "MIT AND GPL-3.0-only")], False),
        ([("License-Expression", "Apache-2.0 AND BSD-2-Clause")], True),
        ([("License", "Apache 2.0")], True),
        ([("Classifier", "License :: OSI Approved :: MIT License")], True),
        ([("Classifier", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)")], False),
        ([("License", "All rights reserved")], False),
        ([], False),
    ],
)
def test_what_is_allowed(fields, allowed):
    assert bool(licences.ALLOWED.intersection(licences.licences_of(Package(*fields)))) is allowed  # type: ignore[arg-type]


def test_one_that_is_not_allowed_fails_the_check(monkeypatch, capsys):
    monkeypatch.setattr(licences, "ALLOWED", frozenset({"MIT"}))
    assert licences.main() == 1
    assert "NOT:  boto3" in capsys.readouterr().out
