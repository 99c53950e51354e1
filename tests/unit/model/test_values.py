"""The decorator of r2fs makes of a class what the standard library's makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any

import pytest

from r2fs.model import values


def plain(decorate: Any) -> Any:
    @decorate(frozen=True, slots=True)
    class Plain:
        key: str
        size: int = 3
        headers: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
        secret: str = dataclasses.field(default="s", repr=False)
        note: str = dataclasses.field(default="", compare=False)

        @property
        def double(self) -> int:
            return self.size * 2

    return Plain


def changing(decorate: Any) -> Any:
    @decorate(slots=True)
    class Changing:
        key: str
        names: list[str] = dataclasses.field(default_factory=list, init=False)
        length: int = dataclasses.field(default=0, kw_only=True)

        def __post_init__(self) -> None:
            self.names.append(self.key)

    return Changing


def own_methods(decorate: Any) -> Any:
    @decorate(frozen=True)
    class OwnMethods:
        key: str

        def __repr__(self) -> str:
            return "own"

        def __hash__(self) -> int:
            return 7

    return OwnMethods


def by_identity(decorate: Any) -> Any:
    @decorate(slots=True, eq=False, kw_only=True)
    class ByIdentity:
        key: str

    return ByIdentity


def empty(decorate: Any) -> Any:
    @decorate(frozen=True, slots=True)
    class Empty:
        """Nothing."""

    return Empty


def seen(act: Callable[[Any], object], cls: Any) -> object:
    """The result in words; of an error its class and, where the language words it, its sentence."""
    try:
        return str(act(cls))
    except dataclasses.FrozenInstanceError as error:
        return type(error)
    except (TypeError, AttributeError) as error:
        return type(error), str(error)


ACTS: list[Callable[[Any], object]] = [
    lambda cls: repr(cls("a")),
    lambda cls: repr(cls(key="a")),
    lambda cls: repr(cls()),
    lambda cls: repr(cls("a", 5, {"b": "c"}, "x", "y")),
    lambda cls: repr(cls("a", length=4)),
    lambda cls: repr(cls(key="a", wrong=1)),
    lambda cls: cls("a") == cls("a"),
    lambda cls: cls(key="a") == cls(key="a"),
    lambda cls: cls("a") == cls("b"),
    lambda cls: cls("a") == ("a",),
    lambda cls: cls("a", note="x") == cls("a", note="y"),
    lambda cls: cls() == cls(),
    lambda cls: hash(cls("a")) == hash(cls("a")),
    lambda cls: hash(cls("a")) == hash(cls("b")),
    lambda cls: len({cls(), cls()}),
    lambda cls: dataclasses.asdict(cls("a")),
    lambda cls: repr(dataclasses.replace(cls("a"), key="c")),
    lambda cls: setattr(cls("a"), "key", "b"),
    lambda cls: delattr(cls("a"), "key"),
    lambda cls: hasattr(cls("a"), "__dict__"),
    lambda cls: cls("a").double,
    lambda cls: [
        (each.name, each.init, each.repr, each.compare, each.kw_only) for each in dataclasses.fields(cls)
    ],
    lambda cls: cls.__match_args__,
]


@pytest.mark.parametrize("make", [plain, changing, own_methods, by_identity, empty], ids=lambda m: m.__name__)
def test_a_class_is_what_the_library_makes_of_it(make: Callable[[Any], Any]):
    for act in ACTS:
        assert seen(act, make(values.dataclass)) == seen(act, make(dataclasses.dataclass))


def test_an_instance_that_holds_itself_is_shown():
    one = changing(values.dataclass)("a")
    one.names.append(one)
    assert "..." in repr(one)


def test_first_instances_of_several_threads_are_alike():
    cls = plain(values.dataclass)
    made: list[Any] = []
    threads = [Thread(target=lambda: made.append(cls("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert made == [cls("a")] * 8
