"""`r2fs key`: the object keys of files."""

from __future__ import annotations

import click

from r2fs.cli import show
from r2fs.cli.asking import located
from r2fs.cli.usage import Command, PathText
from r2fs.model.addresses import encoded
from r2fs.model.errors import InvalidArgument


@click.command("key", cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--qualified", is_flag=True, help="Print BUCKET/KEY.")
@click.option("--encoded", "percent", is_flag=True, help="Percent-encode it, `/` as %2F.")
@click.option("--json", "as_json", is_flag=True, help="Print keys, buckets and ETags as JSON.")
def command(paths: tuple[str, ...], qualified: bool, percent: bool, as_json: bool) -> None:
    """Print the object key of each PATH, a line each.

    The key is that of the object as it is or is about to be in the bucket, spelled as the bucket spells it. A
    directory's key ends with a slash. A file of local_patterns has none.
    """
    answers = []
    for path in paths:
        _, found = located(path)
        if found["state"] == "local":
            raise InvalidArgument(f"{path} stays on this host (local_patterns): it has no object")
        key = f"{found['bucket']}/{found['key']}" if qualified else found["key"]
        answers.append(
            {
                "path": path,
                "key": encoded(key) if percent else key,
                "bucket": found["bucket"],
                "etag": found["etag"],
                "state": found["state"],
            }
        )
    if as_json:
        show.as_json(answers)
        return
    for answer in answers:
        if "\n" in answer["key"]:
            raise InvalidArgument(f"{answer['path']}: its key holds a line break: use --encoded or --json")
        click.echo(answer["key"])
