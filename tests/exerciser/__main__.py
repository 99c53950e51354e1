"""`python -m tests.exerciser SEED OPERATIONS DIRECTORY`: prints what is left as JSON, or how it came to a difference.

`--existing NAME=SIZE` names a file that is there at the beginning; `content` says with which bytes.
A process of its own, since a page fault in a mapping holds the interpreter's lock until it is served.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.exerciser.exerciser import Difference, Exerciser


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exerciser")
    parser.add_argument("seed", type=int)
    parser.add_argument("operations", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--existing", action="append", default=[], metavar="NAME=SIZE")
    parser.add_argument("--largest", type=int, default=400 << 10, help="bytes of a file")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="longest rest in seconds after all was closed"
    )
    asked = parser.parse_args()
    existing = {name: int(size) for name, _, size in (pair.partition("=") for pair in asked.existing)}
    exerciser = Exerciser(asked.directory, asked.seed, existing, asked.largest, asked.pause)
    try:
        left = exerciser.run(asked.operations)
    except Difference as difference:
        print(f"again by: python -m tests.exerciser {' '.join(sys.argv[1:])}", file=sys.stderr)
        print(difference, file=sys.stderr)
        return 1
    print(json.dumps(left))
    return 0


if __name__ == "__main__":
    sys.exit(main())
