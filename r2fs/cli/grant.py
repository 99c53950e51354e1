"""`r2fs grant`: temporary credentials for a prefix, as variables and as a mount line."""

from __future__ import annotations

import json
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from r2fs.cli import renewal, show
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.storing import settings_at
from r2fs.cli.usage import Command, PathText
from r2fs.model.errors import SettingsError
from r2fs.model.keys import normal_prefix
from r2fs.model.settings import Bucket
from r2fs.model.settings.loading import R2_DOMAIN
from r2fs.model.settings.settings_file import SettingsFile
from r2fs.model.settings.sources import gather
from r2fs.model.settings.units import Duration

if TYPE_CHECKING:  # boto3 is imported by the command alone
    from r2fs.store.s3.grant import Grant

SHORTEST_S, LONGEST_S = 60.0, 604_800.0


def parse_ttl(ctx: click.Context, parameter: click.Parameter, text: str) -> int:
    kind = Duration(SHORTEST_S, LONGEST_S)
    try:
        return int(kind.parse(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}; allowed: {kind.allowed}") from None


@click.command("grant", cls=Command)
@click.argument("target", metavar="PREFIX|URL|NAME", shell_complete=complete_target)
@click.option(
    "--ttl", "ttl_s", default="1h", callback=parse_ttl, metavar="TIME", show_default=True, help="Life: 1m to 7d."
)  # fmt: skip
@click.option("--ro", "read_only", is_flag=True, help="Only to list and read.")
@click.option("--role", metavar="ARN", help="Not on R2: the role to assume.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
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
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file to read."
)
def command(
    target: str,
    ttl_s: int,
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
    if renewed is not None and ttl_s < renewal.SHORTEST_S:
        raise click.UsageError(f"with --renew, --ttl is {renewal.SHORTEST_S // 60}m or more")
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
        return grant(bucket, Wish(prefix, read_only, ttl_s, role), time.time())

    if renewed is not None:
        renewal.renew(lambda: json.dumps(_for_process(made_now())), Path(renewed), ttl_s)
        return
    made = made_now()
    if as_process:
        show.as_json(_for_process(made))
        return
    end = _end_of(made)
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


def _end_of(made: Grant) -> str:
    return datetime.fromtimestamp(made.ends_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _for_process(made: Grant) -> dict[str, object]:
    """Fields that AWS's setting credential_process reads (the AWS CLI's user guide, "Sourcing credentials with an external process")."""
    keys = {"AccessKeyId": made.access_key_id, "SecretAccessKey": made.secret_access_key}
    return {"Version": 1, **keys, "SessionToken": made.session_token, "Expiration": _end_of(made)}


def _is_place(target: str, config_file: Path | None) -> bool:
    """True for a URL and for a mount's name; False for a prefix, of the bucket of the settings."""
    file: SettingsFile = gather(config_file=config_file, warn=False).file
    return "://" in target or target in file.mounts


def _variables(bucket: Bucket, key_id: str, secret: str, token: str) -> dict[str, str]:
    """The variables that r2fs reads; of AWS's family other tools read them too."""
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
