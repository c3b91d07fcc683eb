"""Sums of products: the dimension that is summed over is one on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ..terms import ONE, Label
from .registry import Unsupported, rule

if TYPE_CHECKING:
    from ..derivation import Derivation


@rule("linear")
def linear(d: Derivation, node: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None = None) -> list[Label]:
    """``x @ weight.T + bias``."""
    out = d.matmul(d.of(x), list(reversed(d.of(weight))))
    return out if bias is None else d.broadcast(out, d.of(bias))


@rule("matmul mm bmm mv dot vdot __matmul__")
def matmul(d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, *args: Any) -> list[Label]:
    """``a @ b``."""
    return d.matmul(d.of(a), d.of(b))


@rule("addmm", "baddbmm", "addmv")
def addmm(d: Derivation, node: fx.Node, c: fx.Node, a: fx.Node, b: fx.Node, **kwargs: Any) -> list[Label]:
    """``c + a @ b``."""
    return d.broadcast(d.matmul(d.of(a), d.of(b)), d.of(c))


@rule("addbmm")
def addbmm(d: Derivation, node: fx.Node, c: fx.Node, a: fx.Node, b: fx.Node, **kwargs: Any) -> list[Label]:
    """``c`` plus the sum of the products of a batch."""
    return d.broadcast(d.reduce(d.matmul(d.of(a), d.of(b)), [0], keep=False), d.of(c))


@rule("outer", "ger")
def outer(d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node) -> list[Label]:
    """All products of two vectors."""
    return [*d.of(a), *d.of(b)]


@rule("inner")
def inner(d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node) -> list[Label]:
    """Inner products of the last dimensions."""
    first, second = d.of(a), d.of(b)
    if not first or not second:
        return d.broadcast(first, second)
    return _tensordot(d, first, second, [len(first) - 1], [len(second) - 1])


@rule("tensordot")
def tensordot(
    d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, dims_a: Sequence[int], dims_b: Sequence[int]
) -> list[Label]:
    """Several dimensions of each summed over together."""
    first, second = d.of(a), d.of(b)
    return _tensordot(d, first, second, [k % len(first) for k in dims_a], [k % len(second) for k in dims_b])


def _tensordot(
    d: Derivation, a: Sequence[Label], b: Sequence[Label], dims_a: Sequence[int], dims_b: Sequence[int]
) -> list[Label]:
    for k, m in zip(dims_a, dims_b, strict=True):
        d.unify(a[k], b[m])
    out = [label for k, label in enumerate(a) if k not in dims_a]
    out += [label for k, label in enumerate(b) if k not in dims_b]
    d.contract(d.product(*(a[k] for k in dims_a)), [], out)
    return out


@rule("bilinear")
def bilinear(
    d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, weight: fx.Node, bias: fx.Node | None = None
) -> list[Label]:
    """``a weight[o] b`` for each output ``o``."""
    first, second, (out, left, right) = d.of(a), d.of(b), d.of(weight)
    batch = d.broadcast(first[:-1], second[:-1])
    d.unify(first[-1], left)
    d.unify(second[-1], right)
    for over in (left, right):
        d.contract(over, [], [*batch, out])
    if bias is not None:
        d.unify(d.of(bias)[0], out)
    return [*batch, out]


@rule("cdist", "_cdist_forward", "_euclidean_dist")
def cdist(d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, *args: Any) -> list[Label]:
    """Distances of the rows of two matrices."""
    first, second = d.of(a), d.of(b)
    return d.matmul(first, [*second[:-2], second[-1], second[-2]])


# ---- einsum


@rule("einsum")
def einsum(d: Derivation, node: fx.Node, equation: str, operands: Sequence[fx.Node], **kwargs: Any) -> list[Label]:
    """One label for each letter; letters that the result lacks are summed over.

    Letters that are summed over and stand in the same operands are one sum: nested letters may then move together.
    """
    tensors = [d.of(operand) for operand in operands]
    inputs, output = _parse(equation, [len(labels) for labels in tensors])
    names: dict[str, Label] = {}
    for letters, labels in zip(inputs, tensors, strict=True):
        for letter, label in zip(letters, labels, strict=True):
            if d.size(label) == 1:  # broadcast against the others of this letter
                names.setdefault(letter, ONE)
            elif names.get(letter, ONE) == ONE:
                names[letter] = label
            else:
                d.unify(names[letter], label)
    stays = [names[letter] for letter in output]
    sums: dict[tuple[int, ...], list[str]] = {}
    for letter in names:
        if letter not in output:
            sums.setdefault(tuple(k for k, letters in enumerate(inputs) if letter in letters), []).append(letter)
    for where, letters in sums.items():
        shared = [names[x] for x in output if all(x in inputs[k] for k in where)]
        d.contract(d.product(*(names[x] for x in letters)), shared, stays)
    return stays


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Letters of the dimensions of every operand and of the result; those of an ellipsis are called ``.1``, ``.2``, ...

    Counted from the last one, since they are aligned there.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = []
    for term, rank in zip(left.split(","), ranks, strict=True):
        before, dots, after = term.partition("...")
        hidden = rank - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            raise Unsupported(f"einsum {equation!r} of a tensor with {rank} dimensions")
        inputs.append([*before, *_dots(hidden), *after])
    every = [letter for letters in inputs for letter in letters]
    dots_of_result = _dots(len({letter for letter in every if letter.startswith(".")}))
    if not arrow:  # without an arrow: letters that stand once, in alphabetical order
        return inputs, [*dots_of_result, *sorted(x for x in set(every) if every.count(x) == 1 and len(x) == 1)]
    before, dots, after = right.partition("...")
    return inputs, [*before, *(dots_of_result if dots else []), *after]


def _dots(count: int) -> list[str]:
    return [f".{k}" for k in range(count, 0, -1)]


# ---- attention


@rule("scaled_dot_product_attention")
def attention(
    d: Derivation,
    node: fx.Node,
    query: fx.Node,
    key: fx.Node,
    value: fx.Node,
    mask: fx.Node | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    **kwargs: Any,
) -> list[Label]:
    """Softmax of ``query @ key.T`` (with a mask) times ``value``.

    ``attn_mask``, ``is_causal``, ``enable_gqa`` (each head of keys serves a block of query heads) may come by name.
    """
    mask = kwargs.get("attn_mask", mask)
    causal = kwargs.get("is_causal", causal)
    q, k, v = d.of(query), d.of(key), d.of(value)
    heads = q[:-2]
    grouped = kwargs.get("enable_gqa", False) and d.size(q[-3]) != d.size(k[-3])
    if grouped:
        heads = [*q[:-3], *d.split(q[-3], d.size(k[-3]))]
        k, v = [*k[:-2], ONE, *k[-2:]], [*v[:-2], ONE, *v[-2:]]
    batch = d.broadcast(heads, k[:-2], v[:-2])
    d.unify(q[-1], k[-1])
    d.unify(k[-2], v[-2])
    if causal:
        d.fix(q[-2], "positions of a causal mask")
        d.fix(k[-2], "positions of a causal mask")
    if mask is not None:
        d.broadcast([*q[:-2], q[-2], k[-2]], d.of(mask))
    d.contract(q[-1], batch, [*batch, q[-2], k[-2]])
    d.contract(k[-2], [*batch, q[-2]], [*batch, q[-2], v[-1]])
    if grouped:
        batch = [*batch[:-2], d.product(*batch[-2:])]
    return [*batch, q[-2], v[-1]]


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
)
def attention_kernel(d: Derivation, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """The kernels behind attention return normalizers besides, in shapes of their own."""
    raise Unsupported("a kernel of attention: trace before it is chosen")


# ---- products of rows in groups


@rule("_grouped_mm", "grouped_mm")
def grouped_mm(
    d: Derivation, node: fx.Node, a: fx.Node, b: fx.Node, offsets: fx.Node | None = None, *args: Any, **kwargs: Any
) -> list[Label]:
    """Rows of ``a`` in runs that end at ``offsets``, each run times its own matrix of the stack ``b``.

    The runs are in order, so the stack is; inside, matrices may be permuted differently, since a row knows its run.
    """
    offsets = kwargs.get("offs", offsets)
    bias = kwargs.get("bias", args[0] if args else None)
    rows, stack = d.of(a), d.of(b)
    if len(rows) == len(stack) == 3 and offsets is None and bias is None:
        return d.matmul(rows, stack)
    if len(rows) != 2 or len(stack) != 3 or offsets is None or bias is not None:
        raise Unsupported("groups along another dimension")
    for label in (rows[0], stack[0], d.of(offsets)[0]):
        d.fix(label, "groups in order")
    d.unify(stack[0], d.of(offsets)[0])
    d.unify(rows[1], stack[1])
    d.index_tags[offsets.name] = (stack[0], [rows[0]])
    d.contract(rows[1], [rows[0]], [rows[0], stack[2]])
    return [rows[0], stack[2]]
