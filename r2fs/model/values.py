"""Values: `dataclass` as of the standard library, with less to compile at the start of a process.

`dataclasses.dataclass` compiles up to seven methods for each class, a millisecond of processor time. r2fs has more than
200 such classes, and a command or a daemon makes instances of a few of them. Here methods of all classes are the same
functions, which read the names of the fields; `__init__` alone is compiled, when a class gets its first instance.

Owns:  `dataclass`, with the parameters that r2fs uses. `field`, `fields`, `replace` and `asdict` are the library's own.
Never: differs from the library's in what a program sees. Not taken over: InitVar, order, weakref_slot, pickling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import Field, FrozenInstanceError
from dataclasses import asdict as asdict
from dataclasses import field as field
from dataclasses import fields as fields
from dataclasses import replace as replace
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

ValueT = TypeVar("ValueT")


def _made(
    cls: type[ValueT] | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    eq: bool = True,
    kw_only: bool = False,
) -> Any:
    """Return the class with its fields and methods; without `cls`, the decorator that does so."""

    def decorate(cls: type[ValueT]) -> type[ValueT]:
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # else the library inspects a signature to write one
        made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
        methods: dict[str, Any] = {"__init__": _first_init(made), "__repr__": _repr}
        if eq:
            methods |= {"__eq__": _eq(made), "__hash__": _hash(made) if frozen else None}
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
        for name, method in methods.items():
            if name not in cls.__dict__:
                setattr(made, name, method)
        return made

    return decorate if cls is None else decorate(cls)


def _first_init(cls: type) -> Callable[..., None]:
    """The `__init__` of the first instance, which puts the compiled one in its place."""

    def __init__(self: object, *given: Any, **named: Any) -> None:
        compiled = _compiled_init(cls)
        cls.__init__ = compiled  # type: ignore[misc]
        compiled(self, *given, **named)

    return __init__


def _compiled_init(cls: type) -> Callable[..., None]:
    """The library's own `__init__`, of a frozen class with the same fields: it sets them past `__setattr__`."""
    own = [(each.name, object, _like(each)) for each in fields(cls)]
    after = {"__post_init__": None} if hasattr(cls, "__post_init__") else {}
    twin: Any = dataclasses.make_dataclass(
        cls.__name__, own, namespace=after, repr=False, eq=False, frozen=True
    )
    compiled: Callable[..., None] = twin.__init__
    compiled.__qualname__ = f"{cls.__qualname__}.__init__"  # of its errors
    return compiled


def _like(one: Field[Any]) -> Any:
    """A field for another class: one belongs to a single class."""
    return field(default=one.default, default_factory=one.default_factory, init=one.init, kw_only=one.kw_only)


def _getter(names: list[str]) -> Callable[[Any], object]:
    """A function that returns these fields of an instance as a tuple."""
    if not names:
        return lambda value: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


def _eq(cls: type) -> Callable[[Any, object], bool]:
    compared = _getter([each.name for each in fields(cls) if each.compare])

    def __eq__(self: Any, other: object) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(cls: type) -> Callable[[Any], int]:
    counted = _getter(
        [each.name for each in fields(cls) if (each.compare if each.hash is None else each.hash)]
    )

    def __hash__(self: Any) -> int:
        return hash(counted(self))

    return __hash__


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: object, name: str, value: object = None) -> NoReturn:
    raise FrozenInstanceError(f"{self.__class__.__qualname__}.{name} does not change")


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # the checker knows this one, and what it makes of a class
else:
    dataclass = _made
