"""Prices: R2's prices of storage and requests, and the cost of amounts, in US dollars.

The free tier is not subtracted: it is the account's, not a mount's.
"""

from __future__ import annotations

from dataclasses import dataclass

# Standard storage, as of November 2026: https://developers.cloudflare.com/r2/pricing/
# Deletes and aborts are free, and a LIST is of class A.
STORAGE, CLASS_A, CLASS_B = 0.015, 4.50, 0.36

GB = 10**9  # bytes: the unit of bills
MILLION = 10**6
DAY_S = 86400.0
MONTH_S = 30 * DAY_S


@dataclass(frozen=True, slots=True)
class Prices:
    storage: float = STORAGE  # dollars per GB and month
    class_a: float = CLASS_A  # dollars per million requests
    class_b: float = CLASS_B  # dollars per million requests

    def of_storage(self, size: int) -> float:
        """Dollars for `size` bytes during a month."""
        return size / GB * self.storage

    def of_requests(self, class_a: float, class_b: float) -> float:
        """Dollars for these numbers of requests."""
        return (class_a * self.class_a + class_b * self.class_b) / MILLION
