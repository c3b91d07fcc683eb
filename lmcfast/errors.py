"""The exception types of lmcfast.

Every error that a caller can cause derives from :class:`LmcfastError` and from the builtin that fits best, so both
``except ValueError`` and ``except lmcfast.LmcfastError`` work. The message names the argument and the value received;
what a program may want to act on (a row, a tensor's name, a path) is an attribute too.
"""

from __future__ import annotations


class LmcfastError(Exception):
    """Base of all errors that lmcfast raises on purpose."""


class InvalidScoresError(LmcfastError, ValueError):
    """The scores hold a value that no assignment can use: NaN, or the infinity that does not mean "forbidden".

    ``row``, ``column`` and, for a batch, ``problem`` give the first place; None for errors about the whole array.
    """

    def __init__(
        self, message: str, row: int | None = None, column: int | None = None, problem: int | None = None
    ) -> None:
        super().__init__(message)
        self.row = row
        self.column = column
        self.problem = problem


class ScoresShapeError(LmcfastError, ValueError):
    """``scores`` or ``prices`` has the wrong number of dimensions or does not fit the other."""


class InfeasibleError(LmcfastError, ValueError):
    """Too many pairs are forbidden: no assignment of the smaller side exists.

    ``row`` is a row (a column where there are more rows than columns: then ``column``) that cannot be assigned
    together with those before it; ``problem`` is the index in the batch.
    """

    def __init__(
        self, message: str, row: int | None = None, column: int | None = None, problem: int | None = None
    ) -> None:
        super().__init__(message)
        self.row = row
        self.column = column
        self.problem = problem


class CertificateError(LmcfastError, ValueError):
    """The dual prices do not prove the assignment optimal: a bug in lmcfast, or scores changed during the solve."""

    def __init__(self, message: str, gap: float | None = None) -> None:
        super().__init__(message)
        self.gap = gap


class SpecError(LmcfastError, ValueError):
    """A permutation spec is malformed, does not fit the tensors, or does not leave the network's output unchanged.

    ``tensor`` and ``group`` name the offender where one is known.
    """

    def __init__(self, message: str, tensor: str | None = None, group: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.group = group


class InvalidParamsError(LmcfastError, ValueError):
    """A state dict has a missing, extra, misshapen or non-finite tensor; ``tensor`` names it."""

    def __init__(self, message: str, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class InvalidPermutationError(LmcfastError, ValueError):
    """An index array is not a permutation of its group, or a group has none; ``group`` names it."""

    def __init__(self, message: str, group: str | None = None) -> None:
        super().__init__(message)
        self.group = group


class CheckpointError(LmcfastError, ValueError):
    """A file cannot be read or written as what it should be; ``path`` names it."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class InvalidInputsError(LmcfastError, ValueError):
    """A module cannot take the example inputs that it was given; the module's own error is the cause."""


class OptionError(LmcfastError, ValueError):
    """An option of a run on files has a value that cannot be; ``option`` is its name in the library ("fix")."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class UnavailableError(LmcfastError, RuntimeError):
    """Something that this build or machine lacks: a device, an extension module, an optional package."""
