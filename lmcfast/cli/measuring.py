"""What the commands that run a user's network share: its options, the network, the data, the loss."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckpointError, LmcfastError
from .code import CodeError, describe, is_code, make_module, object_of

if TYPE_CHECKING:
    from torch import Tensor, nn

LOSSES = ("cross_entropy", "mse_loss", "l1_loss", "nll_loss", "binary_cross_entropy_with_logits")

Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODULE:FACTORY", help="Callable of your code that returns the network."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="MODULE:LOADER|FILE.npz",
        help="Callable that returns (inputs, targets) batches; or arrays x_train, y_train, x_test, y_test.",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss", metavar="NAME|MODULE:CALLABLE", help=f"{', '.join(LOSSES)}; or your own (outputs, targets)."
    ),
]
Lambdas = Annotated[int, typer.Option("--lambdas", metavar="N", min=2, help="Points on the line.")]
ResetBatchnorm = Annotated[
    bool,
    typer.Option(
        "--reset-batchnorm", help="Compute BatchNorm's statistics anew at every point, on x_train or the same batches."
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Examples in a batch of FILE.npz.")]
MaxBatches = Annotated[
    int | None, typer.Option("--max-batches", metavar="N", min=1, help="Use only the first N batches of the data.")
]


@dataclass(frozen=True, eq=False)
class Measuring:
    """A network with what it is measured on; ``training``: the batches for BatchNorm's statistics."""

    module: nn.Module
    batches: Iterable[tuple[Any, Any]]
    training: Iterable[tuple[Any, Any]]
    loss: Callable[[Any, Any], Any]
    metrics: Mapping[str, Callable[[Any, Any], Any]]
    reset: bool

    @property
    def prepare(self) -> Callable[[nn.Module], object] | None:
        """What ``analysis.barrier`` does before it measures a point."""
        if not self.reset:
            return None
        from ..merging import reset_batchnorm

        return lambda module: reset_batchnorm(module, self.training)


def check_data(data: str) -> tuple[Path, ...]:
    """The file that ``--data`` names, if it is one; a bad argument where it is neither a file nor code."""
    if is_code(data):
        return ()
    if not data.endswith(".npz"):
        raise typer.BadParameter(f"must be MODULE:LOADER or a file FILE.npz, not {data!r}", param_hint="--data")
    return (Path(data),)


def prepare_measuring(
    model: str,
    data: str,
    loss: str,
    reset: bool,
    batch_size: int,
    max_batches: int | None,
    device: str | None = None,
) -> Measuring:
    """Make the network and read the data, before any long work."""
    measure = _loss(loss)
    module = make_module(model, "--model")
    if device is not None:
        with users_code("--device"):
            module = module.to(device)
    batches, training = _data(data, batch_size)
    if max_batches is not None:
        with users_code("--data"):
            batches = list(itertools.islice(batches, max_batches))
    with users_code("--data"):
        first = _first_batch(data, batches)
    with users_code("--model, --data or --loss"):
        _try(module, measure, first)
    metrics = {"accuracy": accuracy} if _has_classes(loss, first) else {}
    _advise_on_batchnorm(module, reset)
    return Measuring(module, batches, training, measure, metrics, reset)


def check_network(module: nn.Module, ends: Mapping[Path, Mapping[str, Tensor]]) -> None:
    """``InvalidParamsError`` naming the file whose tensors are not those of the network of ``--model``."""
    from ..analysis.evaluation import check_fits

    state = module.state_dict()
    for path, params in ends.items():
        check_fits(state, params, f"{path}: --model:")


@contextmanager
def users_code(options: str) -> Iterator[None]:
    """Make one line of whatever a user's network, loss or loader raises; lmcfast's own errors pass through."""
    with warnings.catch_warnings():
        from ..merging import UnresetBatchNormWarning

        warnings.simplefilter("ignore", UnresetBatchNormWarning)  # said in the command's own words
        try:
            yield
        except (LmcfastError, typer.Exit, typer.BadParameter):
            raise
        except Exception as error:
            raise CodeError(f"{options}: {describe(error)}") from error


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the examples whose largest output is at the target."""
    return outputs.argmax(1).eq(targets).double().mean()


def _loss(text: str) -> Callable[[Any, Any], Any]:
    if text in LOSSES:
        import torch.nn.functional

        known: Callable[[Any, Any], Any] = getattr(torch.nn.functional, text)
        return known
    if not is_code(text):
        known_names = ", ".join(LOSSES)
        raise typer.BadParameter(f"must be {known_names} or MODULE:CALLABLE, not {text!r}", param_hint="--loss")
    own: Callable[[Any, Any], Any] = object_of(text, "--loss")
    return own


def _data(text: str, batch_size: int) -> tuple[Iterable[tuple[Any, Any]], Iterable[tuple[Any, Any]]]:
    """The batches to measure on, and those for BatchNorm's statistics."""
    if not is_code(text):
        from ..study import load_npz

        dataset = load_npz(text)
        return dataset.test_batches(batch_size), dataset.train_batches(batch_size)
    loader = object_of(text, "--data")
    with users_code(f"--data: {text!r} failed"):
        found = loader()
        if not isinstance(found, Iterable):
            raise typer.BadParameter(f"{text!r} gave a {type(found).__name__}, not batches", param_hint="--data")
        batches = list(found) if iter(found) is found else found  # several passes are made
    return batches, batches


def _first_batch(data: str, batches: Iterable[Any]) -> tuple[Any, Any]:
    batch = next(iter(batches), None)
    if batch is None:
        raise CheckpointError(f"--data: {data} gave no batches")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise CheckpointError(f"--data: {data} gave batches that are no pairs (inputs, targets)")
    return batch[0], batch[1]


def _try(module: nn.Module, loss: Callable[[Any, Any], Any], batch: tuple[Any, Any]) -> None:
    """One batch through network and loss: what does not fit is told before the long work."""
    import torch

    from ..batches import device_of, to_device

    inputs, targets = to_device(batch, device_of(module))
    with torch.no_grad():
        float(loss(module.eval()(inputs), targets))


def _has_classes(loss: str, batch: tuple[Any, Any]) -> bool:
    """Whether targets are one class for each example, so that an accuracy makes sense."""
    import torch

    targets = batch[1]
    whole = isinstance(targets, torch.Tensor) and not targets.is_floating_point() and targets.ndim == 1
    return loss in ("cross_entropy", "nll_loss") and whole


def _advise_on_batchnorm(module: nn.Module, reset: bool) -> None:
    from ..merging.batchnorm import batchnorm_layers

    if batchnorm_layers(module) and not reset:
        warnings.warn(
            "the network has BatchNorm running statistics, which do not fit interpolated weights; "
            "--reset-batchnorm computes them anew",
            stacklevel=2,
        )
