"""The table of what servers cannot do stays a table of exceptions."""

from __future__ import annotations

import tests.contract.test_contract as contract
from tests.contract.cannot import BY_BOTO3, CANNOT, NOT_RUN


def excused(kind: str) -> set[str]:
    return {*CANNOT.get(kind, {}), *NOT_RUN.get(kind, {})}


def test_every_name_is_a_test():
    names = {name.partition("[")[0] for kind in CANNOT for name in excused(kind)}
    assert names <= {name for name in dir(contract) if name.startswith("test_")}


def test_every_promise_is_kept_by_two_stores_at_least():
    for name in {name for kind in CANNOT for name in excused(kind)}:
        keepers = [kind for kind in CANNOT if name not in excused(kind) and not kind.endswith(BY_BOTO3)]
        assert len(keepers) >= 2, name
