"""`r2fs bucket`: make and check buckets, show and set their CORS and lifecycle rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from r2fs.cli import show
from r2fs.cli.options import config_option
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.storing import settings_at, store_of
from r2fs.cli.usage import Group, PathText
from r2fs.model.errors import SettingsError
from r2fs.model.keys import printable
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Settings

if TYPE_CHECKING:
    from r2fs.store.s3.admin import BucketAdmin

F = Callable[..., Any]

target_argument = click.argument("target", metavar="URL|NAME", shell_complete=complete_target)
file_argument = click.argument("document", metavar="FILE", type=PathText())


@click.group("bucket", cls=Group)
def command() -> None:
    """Create and check buckets; show and set their CORS and lifecycle rules.

    The credentials need rights on buckets, which a mount does not need: on R2 an API token with the right
    "Admin Read & Write".
    """


@command.command("create")
@target_argument
@click.option(
    "--location", metavar="WHERE", help="R2: wnam, enam, weur, eeur, apac or oc; AWS: a region. Default: the service's choice."
)  # fmt: skip
@config_option
def create(target: str, location: str | None, config_file: Path | None) -> None:
    """Create the bucket of URL. A bucket that is there, and belongs to these credentials, is left as it is."""
    settings = settings_at(target, config_file)
    with _admin(settings) as admin:
        made = admin.create(location)
    click.echo(f"{settings.bucket.url}: {'created' if made else 'is there already'}")


@command.command("check")
@target_argument
@config_option
def check(target: str, config_file: Path | None) -> None:
    """Check that the bucket is there, and that these credentials can list it.

    Exit code 4: key, secret or permission; 5: no such bucket; 6: this host's clock; 11: the network.
    """
    settings = settings_at(target, config_file)
    with store_of(settings, target, config_file):
        click.echo(f"{settings.bucket.url}: the bucket is there, and these credentials can list it")


@command.group("cors", cls=Group)
def cors() -> None:
    """Show and set the web pages that may read the bucket (Cross-Origin Resource Sharing)."""


@cors.command("show")
@target_argument
@config_option
def show_cors(target: str, config_file: Path | None) -> None:
    """Print the CORS rules as JSON, as `set` takes them."""
    with _admin(settings_at(target, config_file)) as admin:
        show.as_json(list(admin.cors()))


@cors.command("set")
@target_argument
@file_argument
@config_option
def set_cors(target: str, document: str, config_file: Path | None) -> None:
    """Replace the CORS rules by those of FILE: JSON, a list of rules or {"CORSRules": [...]}."""
    rules = _rules_of(document, "CORSRules")
    with _admin(settings_at(target, config_file)) as admin, _named(document):
        admin.set_cors(rules)


@cors.command("clear")
@target_argument
@config_option
def clear_cors(target: str, config_file: Path | None) -> None:
    """Remove all CORS rules."""
    with _admin(settings_at(target, config_file)) as admin:
        admin.clear_cors()


@command.group("lifecycle", cls=Group)
def lifecycle() -> None:
    """Show and set the rules by which the bucket deletes objects. R2 deletes within 24 hours of the expiry."""


@lifecycle.command("show")
@target_argument
@config_option
def show_lifecycle(target: str, config_file: Path | None) -> None:
    """Print the lifecycle rules as JSON, as `set` takes them."""
    with _admin(settings_at(target, config_file)) as admin:
        show.as_json(list(admin.lifecycle()))


@lifecycle.command("set")
@target_argument
@file_argument
@config_option
def set_lifecycle(target: str, document: str, config_file: Path | None) -> None:
    """Replace the lifecycle rules by those of FILE: JSON, a list of rules or {"Rules": [...]}.

    R2's own default rule ends multipart uploads after 7 days: repeat it in FILE if it is to stay. A prefix that no
    key of the bucket has is warned of: keys do not begin with the bucket's name.
    """
    rules = _rules_of(document, "Rules")
    settings = settings_at(target, config_file)
    with _admin(settings) as admin, _named(document):
        admin.set_lifecycle(rules)
    with store_of(settings, target, config_file) as store:
        for number, prefix in _prefixes(rules):
            if not store.list_page(prefix, limit=1).objects:
                show.complain(
                    f"warning: rule {number}: no object of {settings.bucket.url} has the prefix {printable(prefix)} now"
                )


@lifecycle.command("clear")
@target_argument
@config_option
def clear_lifecycle(target: str, config_file: Path | None) -> None:
    """Remove all lifecycle rules, R2's default rule for multipart uploads too."""
    with _admin(settings_at(target, config_file)) as admin:
        admin.clear_lifecycle()


@contextmanager
def _admin(settings: Settings) -> Iterator[BucketAdmin]:
    from r2fs.store.s3.admin import BucketAdmin

    if settings.bucket.scheme == "file":
        raise SettingsError(f"{settings.bucket.url} is a directory: it has no bucket to administer")
    admin = BucketAdmin(settings.bucket, SystemClock())
    try:
        yield admin
    finally:
        admin.close()


@contextmanager
def _named(document: str) -> Iterator[None]:
    """Name the file in the error of a document that is no document of S3."""
    from r2fs.store.s3.admin import BadDocument

    try:
        yield
    except BadDocument as error:
        raise SettingsError(f"{document}: {error}") from None


def _rules_of(document: str, name: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(Path(document).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{document} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{document} is not JSON: {error}") from None
    rules = found.get(name) if isinstance(found, dict) else found
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, dict) for rule in rules):
        raise SettingsError(
            f'{document}: a list of rules is needed, or {{"{name}": [...]}} (`clear` removes all)'
        )
    return rules


def _prefixes(rules: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """Number and prefix of each rule that has one (in `Filter`, in its `And`, or in the older place)."""
    for number, rule in enumerate(rules, 1):
        given = rule.get("Filter") or {}
        prefix = given.get("Prefix") or (given.get("And") or {}).get("Prefix") or rule.get("Prefix")
        if prefix:
            yield number, prefix
