"""`r2fs service`: install and remove the systemd service of a mount of the settings file."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.usage import Group
from r2fs.daemon import installation
from r2fs.daemon.installation import Place
from r2fs.model.errors import MountError, SettingsError
from r2fs.model.exit_codes import DONE, SOMETHING_LEFT
from r2fs.model.settings import places
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.options import KEY_PARTS, TABLE
from r2fs.model.settings.settings_file import MOUNT_NAME
from r2fs.model.settings.sources import ENVIRONMENT, Values, gather

BOOTED = Path("/run/systemd/system")
MANAGER_S = 20.0
SYSTEMCTL_S = 600.0  # a stop sends what is pending, and a start waits for the bucket


@click.group("service", cls=Group)
def command() -> None:
    """Make a mount a service of systemd: for the system as root, else for this user."""


@command.command("install")
@click.argument("name", metavar="NAME", shell_complete=complete_target)
@click.option("--no-start", is_flag=True, help="Only write the files.")
@click.option(
    "--linger", is_flag=True, help="For a user: also mount without a login (loginctl enable-linger)."
)
def install(name: str, no_start: bool, linger: bool) -> int:
    """Write unit and credentials of the mount NAME, enable it, and start it.

    NAME is [mount.NAME] of the settings file, with url and mountpoint: /etc/r2fs/config.toml for root, else that of
    this user. A key and other settings that come from variables of this shell are written to files of mode 0600, since a
    service has not these variables. Once more, it replaces what it wrote.

    Example: sudo -E r2fs service install takes
    """
    place = _place()
    values = _values(name, place)
    settings_of(values)  # an error of a wrong setting now, and not in the journal of a unit
    if values.mountpoint is None:
        raise SettingsError(f"[mount.{name}] in {values.file.path} needs a mountpoint")
    unit, written = installation.write_unit(place, _program())
    print(f"{unit}: {'written' if written else 'used as it is'}")
    for path in installation.write_credentials(place, name, _key(values), _variables(values)):
        print(f"{path}: written")
    if linger and place.for_user:
        _linger(pwd.getpwuid(os.getuid()).pw_name)
        _await_manager()
    if no_start:
        return DONE
    values.mountpoint.mkdir(parents=True, exist_ok=True)
    _systemctl(place, "daemon-reload")
    _systemctl(place, "enable", "--quiet", f"r2fs@{name}")
    is_active = _property(place, name, "ActiveState") == "active"
    _systemctl(place, "restart" if is_active else "start", f"r2fs@{name}")
    print(f"r2fs@{name}: enabled, and mounted on {values.mountpoint}")
    return DONE


@command.command("remove")
@click.argument("name", metavar="NAME", shell_complete=complete_target)
def remove(name: str) -> int:
    """Stop the service of the mount NAME, sending what is pending, and remove what install has written.

    The cache, unsent changes and the settings file stay. Returns 75 if changes are unsent: a mount of NAME sends them.

    Example: r2fs service remove takes
    """
    if MOUNT_NAME.fullmatch(name) is None:
        raise SettingsError(f"{name!r} is no mount's name")
    place = _place()
    left = False
    if BOOTED.exists():
        _systemctl(place, "disable", "--quiet", "--now", f"r2fs@{name}")
        left = _property(place, name, "ExecMainStatus") == str(SOMETHING_LEFT)
    removed = list(installation.remove(place, name, _others_run(place, name)))
    for path in removed:
        print(f"{path}: removed")
    if not removed:
        print(f"r2fs@{name}: there was no file of it to remove")
    if BOOTED.exists():
        _systemctl(place, "daemon-reload")
    if left:
        show.complain(f"some changes of {name} are not yet in the bucket: r2fs mount {name} sends them")
        return SOMETHING_LEFT
    return DONE


# ------------------------------------------------------------------ what to write
def _place() -> Place:
    if os.geteuid() == 0:
        return installation.system_place()
    return installation.user_place(os.environ, places.home(os.environ))


def _values(name: str, place: Place) -> Values:
    if MOUNT_NAME.fullmatch(name) is None:
        raise SettingsError(
            f"{name!r} is no mount's name: give the NAME of a [mount.NAME] in the settings file"
        )
    if not place.for_user and not places.SYSTEM_FILE.exists():
        raise SettingsError(
            f"{places.SYSTEM_FILE}: there is no such settings file: r2fs config init --config {places.SYSTEM_FILE} "
            "writes one"
        )
    return gather(name, config_file=None if place.for_user else places.SYSTEM_FILE)


def _key(values: Values) -> dict[str, str]:
    """Parts of the key that come from variables of this shell; none where a file or a profile has it."""
    if os.environ.get("CREDENTIALS_DIRECTORY"):
        return {}
    return {
        part: str(values.get(part))
        for part in KEY_PARTS
        if values.get(part) is not None and _is_of_a_variable(values, part)
    }


def _variables(values: Values) -> dict[str, str]:
    """Other settings that come from variables."""
    found: dict[str, str] = {}
    for option in TABLE:
        if option.name not in KEY_PARTS and _is_of_a_variable(values, option.name):
            value: Any = values.get(option.name)
            text = ",".join(value) if isinstance(value, tuple) else option.kind.write(value).strip('"')
            found[option.name] = str(value) if isinstance(value, str | Path) else text
    return found


def _is_of_a_variable(values: Values, name: str) -> bool:
    return values.rank(name)[0] == ENVIRONMENT and values.source(name).startswith("variable ")


def _program() -> list[str]:
    """This program, for a unit: a link to it on the PATH, else its own file, else this interpreter."""
    called = Path(sys.argv[0])
    if called.name == "r2fs":
        return [shutil.which("r2fs") or str(called.absolute())]
    return [sys.executable, "-m", "r2fs"]


# ------------------------------------------------------------------ systemctl
def _systemctl(place: Place, *words: str) -> str:
    command = ("systemctl", *(["--user"] if place.for_user else []), *words)
    if not BOOTED.exists():
        raise MountError(
            f"systemd does not run here: the files are written, and {' '.join(command)} has to follow"
        )
    return _run(*command)


def _property(place: Place, name: str, of: str) -> str:
    return _systemctl(place, "show", f"--property={of}", "--value", f"r2fs@{name}").strip()


def _runtime_dir() -> str:
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def _linger(user: str) -> None:
    if (Path("/var/lib/systemd/linger") / user).exists():
        return
    try:
        _run("loginctl", "enable-linger", user)
    except MountError as error:  # without polkit, root alone may
        raise MountError(
            f"{error}: as root, run loginctl enable-linger {user}, then this command again"
        ) from None


def _await_manager() -> None:
    """Wait until this user's manager, which lingering starts, takes commands."""
    deadline = time.monotonic() + MANAGER_S
    while not (Path(_runtime_dir()) / "systemd/private").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _others_run(place: Place, name: str) -> bool:
    """True if other mounts are services at the moment, enabled or not: they need the unit."""
    if not BOOTED.exists():
        return False
    said = _systemctl(place, "list-units", "--plain", "--no-legend", "r2fs@*.service")
    return any(not line.startswith(f"r2fs@{name}.service ") for line in said.splitlines())


def _run(*words: str) -> str:
    environ = {**os.environ, "XDG_RUNTIME_DIR": _runtime_dir()}  # missing after su and sudo
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=SYSTEMCTL_S, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{' '.join(words)}: {error}") from None
    if done.returncode:
        raise MountError(f"{' '.join(words)} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
