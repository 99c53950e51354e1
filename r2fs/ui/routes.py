"""Routes: the requests that the page sends, and their answers in JSON.

Fails: InvalidArgument for a parameter that is missing or of another form; the errors of takes.py and mounts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from r2fs.model.errors import (
    AccessRefused,
    Busy,
    InvalidArgument,
    NotADirectory,
    NotFound,
    NotPermitted,
    R2fsError,
    ReadRefused,
)
from r2fs.ui import beneath, takes
from r2fs.ui.beneath import path_of
from r2fs.ui.mounts import Answer, Mounts

STATUS: dict[type[R2fsError], HTTPStatus] = {
    InvalidArgument: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    NotADirectory: HTTPStatus.NOT_FOUND,
    AccessRefused: HTTPStatus.FORBIDDEN,
    ReadRefused: HTTPStatus.FORBIDDEN,
    NotPermitted: HTTPStatus.FORBIDDEN,
    Busy: HTTPStatus.CONFLICT,
}

Parameters = Mapping[str, str]


def status_of(error: R2fsError) -> HTTPStatus:
    """The HTTP status of an error; 502 for those of the daemon, the bucket and the disk."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.BAD_GATEWAY)


class Routes:
    def __init__(self, mounts: Mounts) -> None:
        # constant
        self._mounts = mounts
        self._gets: dict[str, Callable[[Parameters], Answer]] = {
            "mounts": lambda of: {"mounts": mounts.all()},
            "status": lambda of: mounts.status(_text(of, "mount")),
            "cost": lambda of: mounts.cost(_text(of, "mount")),
            "level": self._level,
            "takes": lambda of: takes.all_takes(mounts.daemon(_text(of, "mount"))),
        }

    def get(self, route: str, parameters: Parameters) -> Answer | None:
        """The answer to a GET; None for an unknown route."""
        answer = self._gets.get(route)
        return None if answer is None else answer(parameters)

    def post(self, route: str, message: Mapping[str, Any]) -> Answer | None:
        """The answer to a POST; None for an unknown route."""
        return self._keep(message) if route == "keep" else None

    def file(self, parameters: Parameters) -> tuple[str, str]:
        """Root and path of the file of a request. DaemonUnreachable where a read would wait for a silent daemon."""
        daemon = self._mounts.daemon(_text(parameters, "mount"))
        self._mounts.hear(daemon)
        return daemon.mountpoint, path_of(_text(parameters, "path"))

    def _level(self, parameters: Parameters) -> Answer:
        """The map of a directory. With `look` the mount reads its listing first, as for `ls`."""
        id_, path = _text(parameters, "mount"), path_of(_text(parameters, "path"))
        if parameters.get("look"):
            daemon = self._mounts.daemon(id_)
            self._mounts.hear(daemon)
            beneath.look(daemon.mountpoint, path)
        return self._mounts.level(id_, path)

    def _keep(self, message: Mapping[str, Any]) -> Answer:
        original, kept = path_of(_text(message, "original")), path_of(_text(message, "kept"))
        seen, then = message.get("seen"), _text(message, "then")
        if not isinstance(seen, dict) or not all(isinstance(each, str) for each in seen.values()):
            raise InvalidArgument("seen has the evidence of each take")
        if then not in ("aside", "delete"):
            raise InvalidArgument("then is aside or delete")
        daemon = self._mounts.daemon(_text(message, "mount"))
        evidence = {path_of(ref): each for ref, each in seen.items()}
        return asdict(takes.settle(daemon, original, kept, evidence, then == "delete"))


def _text(parameters: Mapping[str, Any], name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} is a text")
    return value
