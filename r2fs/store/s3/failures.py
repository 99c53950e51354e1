"""Translation of errors of boto3 and of r2fs's own connections into StoreError.

Owns:    the table of exceptions without an S3 answer, and those of them for which no server was reached. The meaning of
         S3's own errors is in `store/answers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

import botocore.exceptions as boto_errors

from r2fs.model.errors import BadCredentials, BodyDamaged, Refused, StoreError, Unavailable
from r2fs.model.keys import printable
from r2fs.store.answers import error_of, server_text
from r2fs.store.bodies import Outgoing
from r2fs.store.s3.values import malformed
from r2fs.store.s3.wire import Answer
from r2fs.store.s3.xml import Malformed

DETAIL = 300  # characters of an exception's text that are shown

# Exceptions without an S3 answer: botocore's classes, r2fs's error, the sentence. The first row that fits counts.
WITHOUT_ANSWER: tuple[tuple[tuple[type[Exception], ...], type[StoreError], str], ...] = (
    (
        (
            boto_errors.NoCredentialsError,
            boto_errors.PartialCredentialsError,
            boto_errors.CredentialRetrievalError,
            boto_errors.NoAuthTokenError,
            boto_errors.TokenRetrievalError,
            boto_errors.SSOError,
        ),
        BadCredentials,
        (
            "no usable credentials: set an access key id and a secret access key "
            "(R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY, or files of them), or a profile"
        ),
    ),
    (
        (boto_errors.ProfileNotFound, boto_errors.ConfigParseError, boto_errors.ConfigNotFound),
        BadCredentials,
        "the profile cannot be read from the AWS configuration: check its name and the file",
    ),
    (
        (boto_errors.SSLError,),
        Unavailable,
        "no TLS connection to {host}: check the endpoint (on R2, the account id in it) and the proxy",
    ),
    (
        (boto_errors.EndpointConnectionError, boto_errors.ProxyConnectionError),
        Unavailable,
        "{host} cannot be reached: check the endpoint (on R2, the account id in it) and the network",
    ),
    (
        (
            boto_errors.ConnectTimeoutError,
            boto_errors.ReadTimeoutError,
        ),
        Unavailable,
        "{host} does not answer",
    ),
    (
        (boto_errors.ResponseStreamingError, boto_errors.IncompleteReadError),
        BodyDamaged,
        "the answer of {host} was cut off",
    ),
    (
        (boto_errors.HTTPClientError, boto_errors.ConnectionError, OSError),
        Unavailable,
        "the connection to {host} broke",
    ),
    (
        (boto_errors.BotoCoreError, ValueError),
        Refused,
        "the request cannot be made: check the name, the endpoint and the region",
    ),
)
EXPECTED: tuple[type[Exception], ...] = (
    boto_errors.ClientError,
    *(kind for kinds, _, _ in WITHOUT_ANSWER for kind in kinds),
)
# No server has got a byte of a request that ended so: it is not billed.
NOT_REACHED = (
    boto_errors.EndpointConnectionError,
    boto_errors.ConnectTimeoutError,
    boto_errors.ProxyConnectionError,
    boto_errors.SSLError,
)


def without_answer(error: BaseException, name: str, host: str) -> StoreError:
    """Return the StoreError for an exception without an S3 answer; raise any other exception."""
    for kinds, ours, says in WITHOUT_ANSWER:
        if isinstance(error, kinds):
            detail = server_text(str(error), DETAIL)
            return ours(f"{printable(name)}: {says.format(host=host)} ({type(error).__name__}: {detail})")
    raise error


# Exceptions of boto3's parser and hooks for a header that does not fit its model.
MISREAD: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
TRANSLATED: tuple[type[Exception], ...] = (Malformed, *EXPECTED, *MISREAD)


class translated(Answer):
    """Context of one request: errors become StoreErrors. `name`: the key, or the bucket's URL.

    dated  completes the error of a refusal
    """

    __slots__ = ("_dated", "_host", "_name", "_outgoing")

    def __init__(
        self,
        name: str,
        host: str,
        outgoing: Outgoing | None,
        dated: Callable[[StoreError, boto_errors.ClientError], StoreError],
    ) -> None:
        super().__init__()
        self._name = name
        self._host = host
        self._outgoing = outgoing
        self._dated = dated

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, TRANSLATED):
            self._raise(error)

    def _raise(self, error: Exception) -> NoReturn:
        if isinstance(error, Malformed):
            raise malformed(self._name, error) from error
        if self._outgoing is not None and self._outgoing.failure is not None:
            raise self._outgoing.failure from None
        if isinstance(error, boto_errors.ClientError):
            raise self._dated(from_answer(error, self._name), error) from error
        if self.arrived and isinstance(error, MISREAD):
            raise malformed(self._name, f"{type(error).__name__}: {error}") from error
        raise without_answer(error, self._name, self._host) from error


def from_answer(error: boto_errors.ClientError, name: str) -> StoreError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = error.response.get("Error", {})
    return error_of(name, status, said.get("Code", ""), said.get("Message", ""))
