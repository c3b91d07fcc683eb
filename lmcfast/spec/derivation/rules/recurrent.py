"""Recurrent layers: the gates are blocks of one hidden dimension, steps keep their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..aliases import operator_name
from ..terms import Label
from .cut import join, segment
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@rule(*_GATES)
def recurrent(
    d: Derivation,
    node: fx.Node,
    x: fx.Node,
    states: Any,
    weights: Sequence[fx.Node],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[list[Label]]:
    """Weights of each layer and direction in a row; states ``(layers * directions, batch, hidden)``."""
    if isinstance(weights, fx.Node) or isinstance(has_biases, list | tuple):
        raise Unsupported("packed sequences")
    given = [states] if isinstance(states, fx.Node) else list(states)
    labels, initial = d.of(x), [d.of(state) for state in given]
    steps = labels[0 if len(labels) == 2 else int(batch_first)]
    d.fix(steps, "steps of a recurrence")
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            cell = layer * directions + direction
            hidden = [segment(d, state, 0, cell, 1)[-1] for state in initial]
            outputs.append(_cell(d, node, labels, weights[cell * count : (cell + 1) * count], has_biases, hidden))
        labels = join(d, [[*labels[:-1], output] for output in outputs], len(labels) - 1)
    return [labels, *initial]


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def recurrent_cell(d: Derivation, node: fx.Node, x: fx.Node, states: Any, *weights: fx.Node | None) -> Any:
    """One step of a recurrent layer."""
    given = [states] if isinstance(states, fx.Node) else list(states)
    labels, initial = d.of(x), [d.of(state) for state in given]
    tensors = [weight for weight in weights if weight is not None]
    _cell(d, node, labels, tensors, len(tensors) > 2, [state[-1] for state in initial])
    for state in initial:
        d.broadcast(labels[:-1], state[:-1])
    return initial if operator_name(node) == "lstm_cell" else initial[0]


def _cell(
    d: Derivation,
    node: fx.Node,
    labels: Sequence[Label],
    weights: Sequence[fx.Node],
    has_biases: bool,
    states: Sequence[Label],
) -> Label:
    """State what one layer in one direction demands; returns the label of its output.

    Weights: ``(gates * hidden, in)``, ``(gates * hidden, out)``, two biases ``(gates * hidden)``, and, where an LSTM
    projects its output, ``(out, hidden)``. ``states``: of the output, and of the LSTM's cell.
    """
    to_input, to_output, *rest = (d.of(weight) for weight in weights)
    biases, projection = (rest[:2], rest[2:]) if has_biases else ([], rest)
    output = to_output[1]
    hidden = projection[0][1] if projection else output
    gates = d.concat(*[hidden] * _GATES[operator_name(node).removesuffix("_cell")])
    for tensor in (to_input, to_output, *biases):
        d.unify(tensor[0], gates)
    d.unify(labels[-1], to_input[1])
    for place, state in zip((output, hidden), states, strict=False):
        d.unify(place, state)
    kept = [*labels[:-1], hidden, output]
    for over in (to_input[1], output):
        d.contract(over, [], kept)
    if projection:
        d.unify(projection[0][0], output)
        d.contract(hidden, [], kept)
    return output
