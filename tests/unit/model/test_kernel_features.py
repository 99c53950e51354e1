"""Features of FUSE by the kernel's release."""

from __future__ import annotations

import pytest

from r2fs.model.kernel_features import EXPIRY, MMAP, PAGES, PASSTHROUGH, RESEND, by_release


@pytest.mark.parametrize(
    ("release", "features"),
    [
        ("6.18.5", [PASSTHROUGH, RESEND, MMAP, EXPIRY, PAGES]),
        ("6.10.0-rc1", [PASSTHROUGH, RESEND, MMAP, EXPIRY, PAGES]),
        ("6.9.0", [PASSTHROUGH, RESEND, MMAP, EXPIRY, PAGES]),
        ("6.8.0-45-generic", [MMAP, EXPIRY, PAGES]),
        ("6.1.0-18-amd64", [PAGES]),
        ("5.10.0", [PAGES]),
        ("4.19", []),
        ("custom", []),
    ],
)
def test_features_by_release(release: str, features: list[str]):
    assert by_release(release) == features
