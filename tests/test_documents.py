"""README and SEMANTICS name only what there is: commands, options, settings, exit codes, tests, files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from r2fs.cli.main import cli
from r2fs.model import errors, exit_codes
from r2fs.model.settings.options import TABLE

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SEMANTICS = (ROOT / "SEMANTICS.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
DOCUMENTS = ["README.md", "SEMANTICS.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
DOCUMENTS += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))

# Options of other programs that the README shows how to call.
FOREIGN_OPTIONS = {
    "--device",
    "--cap-add",
    "--user",
    "--now",
    "--fix",
    "--minutes",
    "--long",
    "--security-opt",
}
FOREIGN_OPTIONS |= {
    "--local",
    "--no-hardlinks",
    "--link",
    "--no-preserve",
    "--link-dest",
    "--hard-dereference",
}
FOREIGN_OPTIONS |= {"--no-deps"}  # of pip
FOREIGN_OPTIONS |= {
    "--json",
    "--plot",
    "--only",
    "--rounds",
    "--quick",
    "--short",
    "--as-user",
}  # of scripts/bench


def commands(group: click.Group = cli, before: str = "r2fs") -> dict[str, click.Command]:
    """Every command that is not a group, by its full name: `r2fs config show`."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{before} {name}")
        elif not command.hidden:
            found[f"{before} {name}"] = command
    return found


def rows(text: str, *heading: str) -> list[list[str]]:
    """The cells of the table with these first column headings."""
    found, within = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            within = False
        elif cells[: len(heading)] == list(heading):
            within = True
        elif within and set(cells[0]) != {"-"}:
            found.append(cells)
    assert found, f"there is no table {heading}"
    return found


def alternatives(usage: str) -> list[str]:
    r"""The commands of a row: `r2fs bucket create\|check URL` is two."""
    *before, last = re.sub(r" [\[A-Z].*", "", usage).split(" ")
    return [" ".join([*before, word]) for word in last.split("\\|")]


def ours(text: str) -> str:
    """`text` without the first column of the tables of other programs' options."""
    for heading in ("rclone mount", "s3fs"):
        for cells in rows(text, heading, "r2fs"):
            text = text.replace(cells[0], "", 1)
    return text


def test_readme_lists_every_setting_with_its_default():
    shown = {
        cells[0].strip("`"): (cells[1].strip("`"), cells[2]) for cells in rows(README, "setting", "default")
    }
    assert shown == {o.name: ("" if o.default is None else o.kind.write(o.default), o.help) for o in TABLE}


def test_readme_lists_every_variable_of_other_tools():
    shown = {
        cells[0].strip("`"): tuple(re.findall(r"`(\w+)`", cells[3]))
        for cells in rows(README, "setting", "default")
    }
    assert shown == {o.name: o.variables for o in TABLE}


def test_readme_lists_every_command():
    shown = [name for cells in rows(README, "command") for name in alternatives(cells[0].strip("`"))]
    assert sorted(shown) == sorted(commands())


def test_readme_names_only_options_that_there_are():
    real = {name for command in [cli, *commands().values()] for p in command.params for name in p.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours(README)))
    assert named - real - FOREIGN_OPTIONS - {"--help"} == set()


def test_readme_lists_every_exit_code():
    real, waiting = set(), [errors.R2fsError]
    while waiting:
        error = waiting.pop()
        real.add(error.exit_code)
        waiting += error.__subclasses__()
    of_commands = {code for name, code in vars(exit_codes).items() if name.isupper()}
    assert {int(cells[0]) for cells in rows(README, "exit code")} == real | of_commands


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it: lower case, no punctuation, `-` for a space."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def faults_of_layout(text: str) -> list[str]:
    """Code blocks that do not end, and headings without a blank line around them, each with its line."""
    lines = ["", *text.splitlines(), ""]
    found, opened = [], 0
    for number, line in enumerate(lines[1:-1], 1):
        fence = re.match(r"\s*```(.*)$", line)
        if fence and opened and fence[1].strip():
            found.append(f"{number}: a code block begins inside that of line {opened}")
        elif fence:
            opened = 0 if opened else number
        elif not opened and re.match(r"#{1,6} ", line) and (lines[number - 1] or lines[number + 1]):
            found.append(f"{number}: no blank line around {line}")
    return [*found, f"{opened}: this code block does not end"] if opened else found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_blocks_end_and_headings_stand_alone(document):
    assert faults_of_layout((ROOT / document).read_text()) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# A\n\n```sh\n# no heading\nls\n```\n\n## B\n", []),
        ("# A\ntext\n\ntext\n## B\n", ["1", "5"]),
        ("```sh\nls\n\n```sh\nls\n```\n", ["4"]),
        ("text\n\n```\nls\n\n# A\n", ["3"]),
    ],
)
def test_faults_of_layout_are_found(text, lines):
    assert [fault.partition(":")[0] for fault in faults_of_layout(text)] == lines


@pytest.mark.parametrize("document", ["README.md", "SEMANTICS.md", "CHANGELOG.md", "SECURITY.md"])
def test_documents_link_to_files_and_headings_that_there_are(document):
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        assert "://" in link or (ROOT / (path or document)).exists(), link
        if heading:
            target = (ROOT / (path or document)).read_text()
            slugs = {slug(h) for h in re.findall(r"^#+ (.*)$", target, re.MULTILINE)}
            assert heading in slugs, link


def test_readme_names_only_files_that_there_are():
    for path in re.findall(r"`((?:scripts|tests|r2fs)/[\w./@-]+)`", README):
        assert (ROOT / path).exists(), path


# ------------------------------------------------------------------ SEMANTICS
def shown_by() -> list[str]:
    """Every `tests/FILE.py::test` that SEMANTICS and SECURITY name."""
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", SEMANTICS + SECURITY)


@pytest.mark.parametrize("reference", shown_by())
def test_tests_that_semantics_names_are_there(reference):
    path, _, name = reference.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_its_test():
    tables = rows(SEMANTICS, "when", "then") + rows(SEMANTICS, "name or key", "what happens")
    tables += rows(SEMANTICS, "fault", "what the program sees")
    missing = [cells[0] for cells in tables if "tests/" not in cells[-1]]
    assert missing == []
