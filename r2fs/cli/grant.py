"""`r2fs grant`: temporary credentials for a prefix, as variables and as a mount line."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from r2fs.cli import show
from r2fs.cli.options import TimeText, config_option, json_option
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.storing import settings_at
from r2fs.cli.usage import Command, PathText
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable, R2fsError, SettingsError
from r2fs.model.keys import normal_prefix
from r2fs.model.settings import Bucket
from r2fs.model.settings.loading import R2_DOMAIN
from r2fs.model.settings.settings_file import SettingsFile
from r2fs.model.settings.sources import gather

if TYPE_CHECKING:  # boto3 is imported by the command alone
    from r2fs.store.s3.grant import Grant

SHORTEST_S, LONGEST_S = 60.0, 604_800.0
# A reader of the file (botocore) asks again in the last 15 minutes of a life, and must in the last ten.
SHORTEST_RENEWED_S = 1200
SHARE = 4  # of a life, after which the next begins: three quarters are left at any time
RETRY_S = 30.0
LOOK_S = 60.0  # a host that has slept goes by the time of day
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command("grant", cls=Command)
@click.argument("target", metavar="PREFIX|URL|NAME", shell_complete=complete_target)
@click.option(
    "--ttl", "ttl_s", default="1h", type=TimeText(SHORTEST_S, LONGEST_S), show_default=True, help="Life: 1m to 7d."
)  # fmt: skip
@click.option("--ro", "read_only", is_flag=True, help="Only to list and read.")
@click.option("--role", metavar="ARN", help="Not on R2: the role to assume.")
@json_option("Print everything as JSON.")
@click.option(
    "--credential-process", "as_process", is_flag=True, help="Print what AWS's setting credential_process reads."
)  # fmt: skip
@click.option(
    "--renew",
    "renewed",
    type=PathText(),
    metavar="FILE",
    help="Write that to FILE, and again before it ends, until a signal.",
)
@config_option
def command(
    target: str,
    ttl_s: float,
    read_only: bool,
    role: str | None,
    as_json: bool,
    as_process: bool,
    renewed: str | None,
    config_file: Path | None,
) -> None:
    """Print temporary credentials that reach only a prefix of a bucket.

    PREFIX is a directory of the bucket of the settings (users/anna); URL is r2://BUCKET/PREFIX or s3://BUCKET/PREFIX;
    NAME is a mount of the settings file. The key of the settings is the parent: what is granted never exceeds its
    rights, and ends with it. On R2 the credentials are signed on this host, without a request; elsewhere the
    service's STS makes them.

    The lines are for a shell. Who has them can use them until they end. With --credential-process the command can
    stand in ~/.aws/config, for a profile that a mount names: the mount then renews its credentials by itself. With
    --renew one process holds the key and keeps FILE fresh, and mounts elsewhere have `credential_process = cat FILE`.

    \b
    Examples:
      eval "$(r2fs grant r2://my-bucket/users/anna --ttl 8h --ro)"
      r2fs grant r2://my-bucket/users/anna --ttl 1h --renew /run/grants/anna.json
    """
    from r2fs.store.s3.grant import Wish, grant

    if as_json and (as_process or renewed):
        raise click.UsageError(
            "--credential-process and --renew have JSON of their own: give them without --json"
        )
    if renewed is not None and ttl_s < SHORTEST_RENEWED_S:
        raise click.UsageError(f"with --renew, --ttl is {SHORTEST_RENEWED_S // 60}m or more")
    if target.startswith("/"):
        raise SettingsError(
            f"{target} is a path: name the prefix as keys have it, as `r2fs key {target}` prints it"
        )
    named = _is_place(target, config_file)
    bucket = settings_at(target if named else None, config_file).bucket
    prefix = bucket.prefix if named else bucket.prefix + normal_prefix(target)
    if bucket.scheme == "file":
        raise SettingsError(f"{bucket.url} is a directory: it has no credentials")

    def made_now() -> Grant:
        return grant(bucket, Wish(prefix, read_only, int(ttl_s), role), time.time())

    if renewed is not None:
        renew(lambda: json.dumps(_for_process(made_now())), Path(renewed), ttl_s)
        return
    made = made_now()
    if as_process:
        show.as_json(_for_process(made))
        return
    end = show.utc(made.ends_s)
    secrets = (made.access_key_id, made.secret_access_key, made.session_token)
    variables = _variables(bucket, *secrets)
    line = _mount_line(bucket, prefix, read_only)
    if as_json:
        parts: dict[str, Any] = dict(
            zip(("access_key_id", "secret_access_key", "session_token"), secrets, strict=True)
        )
        about = {"bucket": bucket.name, "prefix": prefix, "read_only": read_only, "expires": end}
        show.as_json({**parts, **about, "variables": variables, "mount": line})
    else:
        for name, value in variables.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo(f"# until {end}: {line}")


def _for_process(made: Grant) -> dict[str, object]:
    """The JSON of AWS's setting credential_process (AWS CLI user guide, "Sourcing credentials with an external process")."""
    keys = {"AccessKeyId": made.access_key_id, "SecretAccessKey": made.secret_access_key}
    return {"Version": 1, **keys, "SessionToken": made.session_token, "Expiration": show.utc(made.ends_s)}


def _is_place(target: str, config_file: Path | None) -> bool:
    """True for a URL and for a mount's name; False for a prefix, of the bucket of the settings."""
    file: SettingsFile = gather(config_file=config_file, warn=False).file
    return "://" in target or target in file.mounts


def _variables(bucket: Bucket, key_id: str, secret: str, token: str) -> dict[str, str]:
    """Variables with the credentials: those of R2, or of AWS, which other tools read too."""
    host = urlsplit(bucket.endpoint_url or "").hostname or ""
    if host.endswith("." + R2_DOMAIN):
        account, *jurisdiction = host.removesuffix("." + R2_DOMAIN).split(".")
        found = {"R2_ACCOUNT_ID": account, "R2_ACCESS_KEY_ID": key_id, "R2_SECRET_ACCESS_KEY": secret}
        return {
            **found,
            "R2_SESSION_TOKEN": token,
            **({"R2_JURISDICTION": jurisdiction[0]} if jurisdiction else {}),
        }
    found = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}
    if bucket.endpoint_url:
        found["AWS_ENDPOINT_URL_S3"] = bucket.endpoint_url
    return {**found, "AWS_REGION": bucket.region}


def _mount_line(bucket: Bucket, prefix: str, read_only: bool) -> str:
    scheme = "r2" if R2_DOMAIN in (bucket.endpoint_url or "") else "s3"
    url = shlex.quote(f"{scheme}://{bucket.name}/{prefix}".rstrip("/"))
    return f"r2fs mount {url} DIR{' --read-only' if read_only else ''}"


# ------------------------------------------------------------------ renewal
def renew(make: Callable[[], str], file: Path, life_s: float) -> None:
    """Write the text that `make` returns to `file`, mode 0600, each quarter of its life, until a signal of STOP_SIGNALS.

    The file is left: mounts work until its credentials end. An error of the first grant is raised. After a later
    one the last credentials are still valid, and the grant is tried again.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # process 1 of a container has no default actions
    done = False
    while True:
        wait_s = life_s / SHARE
        try:
            _write(file, make())
            done = True
        except R2fsError as error:
            if not done:
                raise
            show.complain(str(error))
            wait_s = min(RETRY_S, wait_s)
        if _stopped_within(wait_s):
            return


def _stopped_within(seconds: float) -> bool:
    """Wait for a signal. False: `seconds` have passed by the time of day."""
    end_s = time.time() + seconds
    while (left_s := end_s - time.time()) > 0:
        if signal.sigtimedwait(STOP_SIGNALS, min(LOOK_S, left_s)) is not None:
            return True
    return False


def _write(file: Path, text: str) -> None:
    try:
        with owned_paths.directory(file.parent) as directory:
            owned_paths.replace_file(directory, file.name, text.encode())
    except OSError as error:
        raise DirectoryUnusable(f"{os.fspath(file)} cannot be written: {error.strerror}") from None
