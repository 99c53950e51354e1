"""boto3's session: the key that requests are signed with, from the settings, a profile or AWS's own places.

Owns:    the check of AWS's files before botocore reads them, and the redaction of a key before an answer can repeat it.
Never:   sends a request; imports boto3 before a session is opened, which many mounts never do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from r2fs.model import owned_paths
from r2fs.model.errors import BadCredentials
from r2fs.model.redaction import hide
from r2fs.model.settings import Credentials
from r2fs.store.s3.signing import Frozen

if TYPE_CHECKING:
    from boto3.session import Session as Session

AWS_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
    "BOTO_CONFIG": "~/.boto",
}
NEEDED = ("s3", "s3-control", "sts", "sso", "oidc", "portal.sso", "signin")  # services, by botocore's names


def open_session(credentials: Credentials) -> Session:
    """Open the session that a client's key comes from; a profile and AWS's own places are read when it is made."""
    _check_aws_files()
    from boto3.session import Session

    session = Session(
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
        profile_name=credentials.profile,
    )
    _keep_few_endpoints(session)
    return session


def _keep_few_endpoints(session: Session) -> None:
    """Drop the endpoints of all services but NEEDED: botocore keeps those of all AWS, in 7 MB, as long as a client
    lives."""
    core: Any = session._session
    resolver: Any = core._get_internal_component("endpoint_resolver")
    for partition in resolver._endpoint_data["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in NEEDED if name in services}


def aws_files() -> dict[str, str]:
    """Return the paths of AWS's files, which may not be there, by the variables that name them."""
    return {
        variable: os.path.expanduser(os.environ.get(variable) or usual)
        for variable, usual in AWS_FILES.items()
    }


def _check_aws_files() -> None:
    """Refuse AWS's files that other users can change: botocore runs the `credential_process` that they name."""
    for variable, path in aws_files().items():
        try:
            owned_paths.check_file(path, os.stat(path))
        except owned_paths.UnsafePath as error:
            raise BadCredentials(f"AWS's settings are not read: {error.strerror} ({variable})") from None
        except OSError:
            continue  # there is none, or it cannot be read: botocore says so if it needs it


def key_source(session: Session) -> Callable[[], Frozen | None]:
    """Return a function that gives the key of this moment: botocore renews one that expires."""
    found: Any = session.get_credentials()
    return (lambda: None) if found is None else found.get_frozen_credentials


def frozen_key(session: Session) -> Frozen | None:
    """Return the key of this moment."""
    return key_source(session)()


class HiddenKey:
    """Redacts the key that a client signs with before an answer can repeat it."""

    def __init__(self, session: Session) -> None:
        # constant
        self._session = session
        # of whichever thread comes first: a second one hides the same once more
        self._token: object = self  # of the last request; no token is None

    def look(self, token: object) -> None:
        """Redact the key of a request that was signed with the session token `token`; a role's changes each hour."""
        if token == self._token:
            return
        frozen = frozen_key(self._session)
        if frozen:
            hide(frozen.secret_key, frozen.token, identifier=frozen.access_key)
        self._token = token
