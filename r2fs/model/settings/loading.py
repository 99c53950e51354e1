"""Settings of one mount, made from the values of `sources.py`: the rules of URLs, endpoints, regions and credentials.

For r2:// an account id has precedence over an endpoint of a weaker source: an AWS_ENDPOINT_URL of another
service does not replace R2_ACCOUNT_ID. The region of AWS's variables does not apply to R2.

Never: asks the bucket; lets a secret into a message.
Fails: SettingsError if no bucket is named, or its settings are not complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from r2fs.model.errors import SettingsError
from r2fs.model.keys import normal_prefix
from r2fs.model.settings import Bucket, Credentials, Settings, places
from r2fs.model.settings.options import FAMILIES, TABLE
from r2fs.model.settings.sources import ENVIRONMENT, OF_BUCKET, Flag, Values, gather
from r2fs.model.settings.units import BucketNames

R2_DOMAIN = "r2.cloudflarestorage.com"
_NAMES = BucketNames()
EVERY = "*"  # in place of a bucket's name: all that the service lists


def load(
    target: str | None = None,
    *,
    flags: Mapping[str, Flag] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
) -> Settings:
    """`settings_of` the values of `gather`."""
    return settings_of(gather(target, flags=flags, environ=environ, config_file=config_file))


def settings_of(values: Values) -> Settings:
    bucket = _bucket(values)
    if not bucket.several:
        values = values.for_bucket(bucket.name)
    own = places.slug(bucket)
    plain = {
        option.field: values.get(option.name)
        for option in TABLE
        if option.field in Settings.__dataclass_fields__
        and option.name not in ("bucket", "cache_dir", "state_dir")
    }
    return Settings(
        bucket=bucket,
        cache_dir=values.get("cache_dir") / own,
        state_dir=values.get("state_dir") / own,
        name=values.name,
        programs=values.file.programs,
        **plain,
    )


def credentials_at(values: Values, bucket: str) -> Credentials:
    return credentials_of(values.for_bucket(bucket))


def _bucket(values: Values) -> Bucket:
    url = values.get("url") or _url_of_bucket(values)
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        if not rest.startswith("/"):
            raise SettingsError(f"{url}: a file URL has an absolute path, as in file:///srv/bucket")
        return Bucket("file", os.path.normpath("/" + rest.lstrip("/")))
    if scheme not in ("r2", "s3"):
        source = values.source("url")
        raise SettingsError(f"{url.split('@')[-1]} ({source}): a URL begins with r2://, s3:// or file:///")
    name, _, prefix = rest.partition("/")
    if "@" in name or ":" in name:
        raise SettingsError("a bucket's URL holds no key: use variables, a file or a profile for it")
    names: tuple[str, ...]
    try:
        names = _NAMES.parse(name.split("+")) if name else values.get("bucket") or (EVERY,)
    except ValueError:
        raise SettingsError(f"{url} ({values.source('url')}) names no bucket: r2://BUCKET/PREFIX") from None
    prefix = normal_prefix(prefix)
    if len(names) == 1 and names != (EVERY,):
        return _one(values.for_bucket(names[0]), scheme, names[0], prefix)
    if prefix:
        raise SettingsError(
            f"{url}: a prefix is of one bucket, and this mount has several: r2://BUCKET/PREFIX"
        )
    return _several(values, scheme, names)


def _one(values: Values, scheme: str, name: str, prefix: str = "") -> Bucket:
    endpoint = _endpoint(values, scheme)
    return Bucket(
        scheme="s3",
        name=name,
        prefix=prefix,
        given=f"{scheme}://{name}" + (f"/{prefix.rstrip('/')}" if prefix else ""),
        endpoint_url=endpoint,
        region=_region(values, scheme, endpoint),
        addressing=values.get("addressing"),
        credentials=credentials_of(values),
        request_timeout_s=values.get("request_timeout"),
        md5_etags=values.get("md5_etags"),
        transport=values.get("transport"),
    )


def _several(values: Values, scheme: str, names: tuple[str, ...]) -> Bucket:
    """The buckets `names`, or all of the account: then those with a table of their own are members."""
    every = names == (EVERY,)
    members = tuple(
        replace(
            _one(own, scheme, name),
            public_url=own.get("public_url") if own.rank("public_url") == OF_BUCKET else None,
            read_only=bool(own.get("read_only")) and own.rank("read_only") == OF_BUCKET,
        )
        for name in (sorted(values.file.buckets) if every else names)
        for own in (values.for_bucket(name),)
    )
    try:
        top = _one(values, scheme, "")
    except SettingsError:  # each bucket may have its own endpoint and key
        if every:
            raise
        top = replace(members[0], public_url=None, read_only=False)
    given = f"{scheme}://" + ("" if every else "+".join(names))
    return replace(top, name="", given=given, members=members, every=every, label=values.name)


def _url_of_bucket(values: Values) -> str:
    """URL of a bucket given by name alone: in R2, unless only another service's endpoint is set."""
    if not values.get("bucket"):
        raise SettingsError(
            "no bucket is named: give r2://BUCKET, s3://BUCKET or a mount's name; for files on this host alone, "
            "without a server, file:///DIRECTORY"
        )
    endpoint = values.get("endpoint_url")
    return "r2://" if values.get("account_id") or not endpoint or R2_DOMAIN in endpoint else "s3://"


def _endpoint(values: Values, scheme: str) -> str | None:
    endpoint: str | None = values.get("endpoint_url")
    if scheme == "s3":
        return endpoint
    account = values.get("account_id")
    if account and (not endpoint or values.rank("account_id") > values.rank("endpoint_url")):
        jurisdiction = values.get("jurisdiction")
        return f"https://{account}{'.' + jurisdiction if jurisdiction else ''}.{R2_DOMAIN}"
    if not endpoint:
        raise SettingsError(
            "r2:// needs the Cloudflare account: set account_id (R2_ACCOUNT_ID) or endpoint_url (R2_ENDPOINT, "
            "STORAGE_ENDPOINT_URL); to work on local files, without a server, give file:///DIRECTORY in its place"
        )
    return endpoint


def _region(values: Values, scheme: str, endpoint: str | None) -> str:
    region: str | None = values.get("region")
    of_aws = values.rank("region") == (ENVIRONMENT, FAMILIES.index("AWS"))
    if scheme == "r2" or (endpoint and R2_DOMAIN in endpoint):
        return region if region and not of_aws else "auto"
    return region or "us-east-1"


def credentials_of(values: Values) -> Credentials:
    """One whole key, or a profile, or neither: the store then looks in the places of AWS's own tools."""
    key, profile = values.get("access_key_id"), values.get("profile")
    if values.get("anonymous"):
        return Credentials(anonymous=True)
    if profile and values.rank("profile") > values.rank("access_key_id"):
        return Credentials(profile=profile)
    secret, token = values.get("secret_access_key"), values.get("session_token")
    if bool(key) != bool(secret):
        here, missing = ("access_key_id", "secret_access_key")[:: 1 if key else -1]
        raise SettingsError(f"{here} is set ({values.source(here)}), but {missing} is not")
    if not key or values.rank("session_token") < values.rank("access_key_id"):
        token = None  # of the key of a weaker source
    return Credentials(key, secret, token, None if key else profile)
