"""Part size of a multipart upload: the parts of one upload are equal, but the last.

Source: R2's documentation, "Multipart upload": all parts except the last have the same size.
"""


def part_size(size: int, wanted: int, max_parts: int) -> int:
    """Equal parts (R2 refuses others): `wanted` bytes each, or more where that would be too many.

    >>> part_size(100 << 30, 16 << 20, 10_000) % (1 << 20)
    0
    """
    mib = 1 << 20
    least = -(-size // max_parts)
    return wanted if wanted >= least else -(-least // mib) * mib
