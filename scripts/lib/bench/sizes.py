"""How much is done in each case, and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """The full measurement."""

    big: int = 256 * MIB  # bytes of the files that are read; their ends are read of the second
    bigger: int = 512 * MIB
    large_files: int = 2  # of these two, read whole
    written: int = 256 * MIB
    files: int = 500  # that are created, and as many small ones that are read
    file: int = 100_000  # bytes of a created one
    small: int = 4096  # of a small one
    headers: int = 40  # files of `header_file` bytes whose first 64 KiB are read
    header_file: int = 2 * MIB
    tops: int = 100  # directories, each with `subs` in it, each with `leaves` files: 1,100 and 10,000
    subs: int = 10
    leaves: int = 10
    million_directories: int = 1000  # of the bucket that nobody stores, with as many files in each
    million_files: int = 1000
    packed_tops: int = 20  # the same in the archive: 220 and 2,000
    cloned_tops: int = 5  # and in the repository: 55 and 500
    tokens: int = 10  # rewritten on one host and awaited on the other
    stalled: int = 1000  # small files that are read while answers stall
    stall_one_in: int = 100
    stall_s: float = 10.0
    warm_rounds: int = 5
    cold_rounds: int = 3
    file_rounds: int = 5  # the disk's own share in these differs by a factor of two
    far_rounds: int = 3
    program_rounds: int = 3
    patience_s: float = 20.0  # of one turn: a slower system is not measured again
    quiet_s: float = 0.5  # no request for as long: a system has done what it had to do
    settled: bool = True  # each turn waits for a quiet machine

    @property
    def tree(self) -> int:
        return self.tops * self.subs * self.leaves

    @property
    def shape(self) -> dict[str, int]:
        return self.shaped(self.tops)

    def at_most(self, rounds: int) -> Sizes:
        """The same with no row measured more often."""
        often = {field.name for field in fields(self) if field.name.endswith("_rounds")}
        return replace(self, **{name: min(rounds, getattr(self, name)) for name in often})

    def shaped(self, tops: int) -> dict[str, int]:
        return {"tops": tops, "subs": self.subs, "leaves": self.leaves}


# A row is measured twice, the far ones and programs once.
SHORT = Sizes(large_files=1, warm_rounds=2, cold_rounds=2, file_rounds=2, far_rounds=1, program_rounds=1)
QUICK = Sizes(  # proves that everything works; its numbers mean nothing
    big=12 * MIB,
    bigger=24 * MIB,
    written=12 * MIB,
    files=20,
    headers=5,
    header_file=MIB // 2,
    tops=4,
    subs=3,
    leaves=10,
    million_directories=30,
    million_files=40,
    packed_tops=1,
    cloned_tops=1,
    tokens=2,
    stalled=40,
    stall_one_in=20,
    stall_s=1.0,
    warm_rounds=2,
    cold_rounds=1,
    file_rounds=1,
    far_rounds=1,
    program_rounds=1,
    quiet_s=0.1,
    settled=False,
)
