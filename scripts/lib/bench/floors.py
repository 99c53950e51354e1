"""What work costs on R2 at least, and how many times as much a system's requests cost.

Owns:  R2's prices and the smallest number of requests for the work of each row.
Never: counts requests; server.py does.

A floor rests on what R2's API can do at best: 1,000 names a LIST, a new object up to 64 MiB in one PUT, a
larger one in parts of 16 MiB and two requests around them, one GET for at most 4 MiB (for as much as one has
to wait at once), 1,000 keys in a request that deletes. Prices: Cloudflare's page "Pricing" of R2, standard storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scripts.lib.bench.sizes import MIB, Sizes

CLASS_A_USD, CLASS_B_USD = 4.50e-6, 0.36e-6  # a request
CLASS_B = frozenset({"GET", "HEAD"})
FREE = frozenset({"DELETE"})  # of one key or of many; also the end of an upload in parts that is given up
PAGE = 1000  # names in a LIST, keys in a request that deletes
PART, IN_PARTS = 16 * MIB, 64 * MIB
PIECE = 4 * MIB

Requests = Mapping[str, int]


def usd(requests: Requests) -> float:
    """Price of these requests, by verb as SeaweedFS counts them."""
    return sum(
        count * (0.0 if verb in FREE else CLASS_B_USD if verb in CLASS_B else CLASS_A_USD)
        for verb, count in requests.items()
    )


def cost_to_floor(requests: Requests | None, floor: Requests | None) -> float | None:
    """Cost of `requests` ÷ cost of `floor`; None where one is not known, or the floor costs nothing."""
    if requests is None or floor is None or not usd(floor):
        return None
    return usd(requests) / usd(floor)


# ------------------------------------------------------------------ the floors
def pages(names: int) -> int:
    return -(-names // PAGE)


def gets(size: int) -> Requests:
    return {"GET": -(-size // PIECE)}


def upload(size: int) -> Requests:
    return {"PUT": -(-size // PART), "POST": 2} if size > IN_PARTS else {"PUT": 1}


def removed(names: int) -> Requests:
    return {"LIST": pages(names), "DELETE": pages(names)}


FLOORS: dict[str, Callable[[Sizes], Requests]] = {
    "cold-read": lambda sizes: gets(sizes.big),
    "cold-read-512": lambda sizes: gets(sizes.bigger),
    "write": lambda sizes: upload(sizes.written),
    "create": lambda sizes: {"PUT": sizes.files},
    "remove": lambda sizes: removed(sizes.files),
    "cold-small": lambda sizes: {"GET": sizes.files},
    "cold-small-random": lambda sizes: {"GET": sizes.files},
    "cold-tree": lambda sizes: {"LIST": pages(sizes.tree)},
    "start-empty": lambda sizes: {"HEAD": 1},  # one file is asked for
    "start-again": lambda sizes: {},
    "hosts": lambda sizes: {"PUT": sizes.tokens, "GET": sizes.tokens},
    "cp": lambda sizes: upload(sizes.written),
    "tar": lambda sizes: {"PUT": sizes.packed_tops * sizes.subs * sizes.leaves},
    "far-read": lambda sizes: gets(sizes.big),
    "far-read-512": lambda sizes: gets(sizes.bigger),
    "far-ends": lambda sizes: {"GET": 2},
    "far-headers": lambda sizes: {"GET": sizes.headers},
    "far-small": lambda sizes: {"GET": sizes.files},
    "far-small-random": lambda sizes: {"GET": sizes.files},
    "far-tree": lambda sizes: {"LIST": pages(sizes.tree)},
    "far-create": lambda sizes: {"PUT": sizes.files},
    "stall-p50": lambda sizes: {"GET": sizes.stalled},
}  # "clone": as many PUT as the clone has files, which git alone knows
