"""`r2fs key` and `r2fs path`: the object key of a file, and the path of an object key."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of, known_daemons, located
from r2fs.cli.options import json_option, paths_argument
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model.addresses import Address, decoded, encoded, parse
from r2fs.model.errors import BadName, InvalidArgument, NotFound
from r2fs.model.keys import printable


@click.command("key", cls=Command)
@paths_argument
@click.option("--qualified", is_flag=True, help="Print BUCKET/KEY.")
@click.option("--encoded", "percent", is_flag=True, help="Percent-encode it, `/` as %2F.")
@json_option("Print keys, buckets and ETags as JSON.")
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


@click.command("path", cls=Command)
@click.argument("key")
@click.option("--mount", "mount", metavar="DIR", type=PathText(), help="Only in this mount.")
@click.option("--encoded", "percent", is_flag=True, help="KEY is percent-encoded.")
@json_option("Print path, mount and bucket as JSON.")
def path(key: str, mount: str | None, percent: bool, as_json: bool) -> None:
    """Print the path of the object KEY in a mount of this user.

    KEY is a key as the bucket has it, BUCKET/KEY, or a URL r2://BUCKET/KEY or s3://BUCKET/KEY. All mounts are looked
    in. It is an error if no mount has the object, or if several have one that KEY can mean: --mount chooses.
    """
    text = decoded(key) if percent else key
    found = list(dict.fromkeys(_existing(text, mount)))
    if not found:
        where = mount or "any mount"
        raise NotFound(f"{printable(text)}: no such object in {where}")
    if len(found) > 1:
        several = ", ".join(printable(path) for path, _, _ in found)
        raise InvalidArgument(f"{printable(text)} can be each of {several}: choose with --mount")
    path, mountpoint, bucket = found[0]
    if as_json:
        show.as_json({"path": path, "mountpoint": mountpoint, "bucket": bucket})
    else:
        click.echo(os.fsencode(path))


def _existing(text: str, mount: str | None) -> Iterator[tuple[str, str, str]]:
    """Path, mount point and bucket of each object that `text` can mean."""
    daemons = known_daemons(started=True)
    if mount is not None:
        daemons = [daemon_of(mount, daemons)]
    for daemon in daemons:
        for bucket, key in _readings(parse(text)):
            yield from _shown(daemon, bucket, key)


def _shown(daemon: Daemon, bucket: str | None, key: str) -> Iterator[tuple[str, str, str]]:
    """The path of `key` in the daemon's mount, if it is there. The key of a link has a suffix that its name lacks."""
    try:
        answer = client.ask_once(daemon, "paths", key=key, bucket=bucket)
    except BadName:
        return
    for found in answer["found"]:
        for path in found["paths"]:
            whole = os.path.join(daemon.mountpoint, path).rstrip("/")
            if os.path.lexists(whole):
                yield whole, daemon.mountpoint, found["bucket"]
                break


def _readings(address: Address) -> Iterator[tuple[str | None, str]]:
    """Bucket (None: any) and key: the text as a key, and as BUCKET/KEY."""
    yield address.bucket, address.key
    if address.bucket is None and "/" in address.key:
        bucket, _, key = address.key.partition("/")
        yield bucket, key
