"""Frozen records for what is imported before the game runs or before the agent's first answer. Standard library only.

`dataclasses` imports `inspect` and compiles constructors: about 10 ms before the first class (measured with `python -X
importtime`), which PID 1 cannot afford between a signal and its handling on a twentieth of a CPU, and 4 million
instructions for each frozen one, which is 0.3 % of the agent's start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    R = TypeVar("R", bound="Record")
else:

    def dataclass_transform(**_options):
        """Tells type checkers that subclasses behave like dataclasses; does nothing at run time."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """An immutable value: annotated names are its fields, class attributes their default values.

    Two records are equal when they are of the same class and all fields are equal.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Collects the fields, inherited ones first."""
        own = (name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind))
        cls.fields = tuple(dict.fromkeys((*cls.fields, *own)))

    def __init__(self, *args: Any, **given: Any) -> None:
        """Takes the fields in order or by name.

        Raises:
            TypeError: one is missing, is given twice, or is not one of this record.
        """
        values = self.__dict__
        values.update(zip(self.fields, args, strict=False))
        doubtful = given and any(name in values or name not in self.fields for name in given)
        if doubtful or len(args) > len(self.fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.fields)}, once each, not {args} {given}")
        values.update(given)
        if len(values) < len(self.fields):
            missing = [name for name in self.fields if name not in values and not hasattr(type(self), name)]
            if missing:
                raise TypeError(f"{type(self).__name__} takes {', '.join(missing)} as well")

    def __setattr__(self, name: str, value: object) -> None:
        """Always raises: records are immutable; use `replace`."""
        raise AttributeError(f"cannot set {name}: a {type(self).__name__} does not change; use replace()")

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same class with the same values."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields)

    def __hash__(self) -> int:
        """By its values."""
        return hash((type(self), *(getattr(self, name) for name in self.fields)))

    def __repr__(self) -> str:
        """As it would be written."""
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({shown})"


def replace(record: R, **changes: Any) -> R:
    """The same record with some fields changed.

    Raises:
        TypeError: a name is not one of its fields.
    """
    wrong = [name for name in changes if name not in record.fields]
    if wrong:
        raise TypeError(f"{type(record).__name__} has no {', '.join(wrong)}")
    new = object.__new__(type(record))
    new.__dict__.update(record.__dict__)
    new.__dict__.update(changes)
    return new
