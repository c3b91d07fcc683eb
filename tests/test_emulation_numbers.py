"""The emulator's rounding intrinsics against exact arithmetic, on random numbers and all pairs of edge cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from helpers import emulation

Format = tuple[int, int]  # digits of the significand, exponent of the largest power of two
FLOAT, DOUBLE, HALF, BFLOAT16 = (24, 127), (53, 1023), (11, 15), (8, 127)
OPERANDS = np.dtype([(n, np.float32) for n in "xyz"] + [("i", np.int32)] + [(n, np.float64) for n in "abc"])
FLOAT_RESULTS = ["add", "subtract", "multiply", "divide", "fused", "narrow", "integer"]
WIDE_RESULTS = ["wide_add", "wide_subtract", "wide_multiply", "wide_divide", "wide_fused"]
RESULTS = np.dtype(
    [(n, np.float32, 4) for n in FLOAT_RESULTS]
    + [("half", np.uint16, 4), ("bfloat16", np.uint16, 4), ("from_half", np.float32), ("from_bfloat16", np.float32)]
    + [(n, np.float64, 4) for n in WIDE_RESULTS]
)
ROUNDINGS = ("nearest", "up", "down", "zero")
EDGES = [0.0, -0.0, 1.0, -1.0, 1 + 2.0**-23, 1 - 2.0**-24, 2.0**-24, 2.0**-25, -(2.0**-26), 3.0, 1 / 3, 65504.0,
         65520.0, 2.0**-149, -(2.0**-149), 2.0**-126, 2.0**-127 * 3, 2.0**-14, 2.0**-24 * 3, 3.4028234663852886e38,
         -3.4028234663852886e38, 2.0**127, 2.0**104, math.inf, -math.inf, math.nan]  # fmt: skip
WIDE_EDGES = [0.0, -0.0, 1.0, -1.0, 1 + 2.0**-52, 1 - 2.0**-53, 2.0**-53, 2.0**-54, -(2.0**-30), 1 / 3, 5e-324, -5e-324,
              2.0**-1022, 2.0**-1000, 1.7976931348623157e308, -1.7976931348623157e308, 2.0**1000, 2.0**128,
              3.4028235677973366e38, 3.4028234663852887e38, 2.0**-150, 2.0**-149 * 1.5, math.inf, -math.inf,
              math.nan]  # fmt: skip


def random_numbers(rng: np.random.Generator, count: int, dtype: type, spread: int) -> np.ndarray:
    """Normal deviates times powers of two; most exponents near each other, so that operands interact."""
    exponents = np.where(rng.random(count) < 0.7, rng.integers(-12, 13, count), rng.integers(-spread, spread, count))
    return np.ldexp(rng.standard_normal(count), exponents).astype(dtype)


def operands() -> np.ndarray:
    rng = np.random.default_rng(5)
    count = max(len(EDGES), len(WIDE_EDGES)) ** 2 + 1500
    made = np.zeros(count, OPERANDS)
    for name in "xyz":
        made[name] = random_numbers(rng, count, np.float32, 120)
    for name in "abc":
        made[name] = random_numbers(rng, count, np.float64, 300)
    for names, edges in (("xy", EDGES), ("ab", WIDE_EDGES)):
        first, second = np.meshgrid(edges, edges)
        made[names[0]][: first.size], made[names[1]][: first.size] = first.ravel(), second.ravel()
    made["a"][-700:] = rng.standard_normal(700, np.float32) + 2.0**-26 * rng.integers(-4, 5, 700)  # near ties of float
    made["i"] = rng.integers(-(2**31), 2**31, count)
    made["i"][:1000] = rng.integers(-(2**25), 2**25, 1000)
    return made


def rounded(exact: Fraction, rounding: str, form: Format) -> float:
    """IEEE 754: the number of the format that the rounding gives; a zero keeps the sign of `exact`."""
    digits, top = form
    magnitude, negative = abs(exact), exact < 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent = exponent if Fraction(2) ** exponent <= magnitude else exponent - 1
    unit = Fraction(2) ** (max(exponent, 1 - top) - digits + 1)
    units, rest = divmod(magnitude, unit)
    outward = {
        "nearest": rest * 2 > unit or (rest * 2 == unit and units % 2 == 1),
        "up": rest > 0 and not negative,
        "down": rest > 0 and negative,
        "zero": False,
    }[rounding]
    result, largest = (units + outward) * unit, (2 - Fraction(2) ** (1 - digits)) * Fraction(2) ** top
    if result > largest:
        away = rounding == "nearest" or (rounding == "up" and not negative) or (rounding == "down" and negative)
        size = math.inf if away else float(largest)
    else:
        size = float(result)
    return math.copysign(size, -1.0 if negative else 1.0)


def expected(values: tuple[float, ...], operation: str, rounding: str, form: Format) -> float:
    """The result by the rules of IEEE 754; the numbers are exact, the rules of zeros and infinities explicit."""
    a, b, c = (*values, 0.0, 0.0)[:3]
    if operation == "subtract":
        return expected((a, -b), "add", rounding, form)
    if not all(map(math.isfinite, values)) or (operation == "divide" and b == 0):
        with np.errstate(all="ignore"):  # infinities and NaN do not depend on the rounding
            x, y, z = np.float64(a), np.float64(b), np.float64(c)
            product = x * y if operation in ("multiply", "fused") and (math.isinf(a) or math.isinf(b)) else 0 * x * y
            results = {"add": x + y, "multiply": x * y, "divide": x / y, "fused": product + z, "convert": x}
            return float(results[operation])
    exact: dict[str, Callable[[], Fraction]] = {
        "add": lambda: Fraction(a) + Fraction(b),
        "multiply": lambda: Fraction(a) * Fraction(b),
        "divide": lambda: Fraction(a) / Fraction(b),
        "fused": lambda: Fraction(a) * Fraction(b) + Fraction(c),
        "convert": lambda: Fraction(a),
    }
    value = exact[operation]()
    if value:
        return rounded(value, rounding, form)
    if operation == "convert":
        return a
    sign = math.copysign(1.0, a) * math.copysign(1.0, b)
    if operation in ("multiply", "divide"):
        return math.copysign(0.0, sign)
    # A sum that is zero: of two zeros of one sign, that sign; else plus, but minus when rounding down.
    signs = (math.copysign(1.0, a), math.copysign(1.0, b)) if operation == "add" else (sign, math.copysign(1.0, c))
    zeros = (a == 0 and b == 0) if operation == "add" else ((a == 0 or b == 0) and c == 0)
    if zeros and signs[0] == signs[1]:
        return math.copysign(0.0, signs[0])
    return -0.0 if rounding == "down" else 0.0


def same(got: float, wanted: float) -> bool:
    if math.isnan(wanted):
        return math.isnan(got)
    return got == wanted and math.copysign(1.0, got) == math.copysign(1.0, wanted)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    place = tmp_path_factory.mktemp("numbers")
    program = emulation.build(place / "numbers", ["numbers"])
    made = operands()
    made.tofile(place / "operands")
    result = emulation.run(program, place / "operands", place / "results")
    assert result.returncode == 0, result.stdout + result.stderr
    return made, np.fromfile(place / "results", RESULTS)


OPERATIONS = [
    *(("", n, "xy", FLOAT) for n in ("add", "subtract", "multiply", "divide")),
    *(("wide_", n, "ab", DOUBLE) for n in ("add", "subtract", "multiply", "divide")),
    ("", "fused", "xyz", FLOAT),
    ("wide_", "fused", "abc", DOUBLE),
]


@pytest.mark.parametrize(("prefix", "operation", "names", "form"), OPERATIONS)
def test_arithmetic(
    table: tuple[np.ndarray, np.ndarray], prefix: str, operation: str, names: str, form: Format
) -> None:
    made, results = table
    columns = [made[name].tolist() for name in names]
    for values, got in zip(zip(*columns, strict=True), results[prefix + operation].tolist(), strict=True):
        for k, rounding in enumerate(ROUNDINGS):
            wanted = expected(values, operation, rounding, form)
            assert same(got[k], wanted), f"{prefix}{operation}{values} {rounding}: {got[k]!r}, not {wanted!r}"


@pytest.mark.parametrize(("source", "result"), [("a", "narrow"), ("i", "integer")])
def test_conversion_to_float(table: tuple[np.ndarray, np.ndarray], source: str, result: str) -> None:
    made, results = table
    for value, got in zip(made[source].tolist(), results[result].tolist(), strict=True):
        for k, rounding in enumerate(ROUNDINGS):
            wanted = expected((value,), "convert", rounding, FLOAT) if value else value
            assert same(got[k], wanted), f"{result}({value!r}) {rounding}: {got[k]!r}, not {wanted!r}"


def decoded(codes: np.ndarray, name: str) -> np.ndarray:
    return codes.view(np.float16).astype(float) if name == "half" else decoded_bfloat16(codes)


def decoded_bfloat16(codes: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaN
        return (codes.astype(np.uint32) << 16).view(np.float32).astype(float)


@pytest.mark.parametrize(("name", "form"), [("half", HALF), ("bfloat16", BFLOAT16)])
def test_conversion_to_16_bits(table: tuple[np.ndarray, np.ndarray], name: str, form: Format) -> None:
    made, results = table
    for value, got in zip(made["x"].tolist(), decoded(results[name], name).tolist(), strict=True):
        for k, rounding in enumerate(ROUNDINGS):
            wanted = expected((value,), "convert", rounding, form)
            assert same(got[k], wanted), f"{name}({value!r}) {rounding}: {got[k]!r}, not {wanted!r}"


def test_conversion_from_16_bits(table: tuple[np.ndarray, np.ndarray]) -> None:
    made, results = table
    codes = made["i"].astype(np.uint16)
    np.testing.assert_array_equal(results["from_half"], codes.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(results["from_bfloat16"], decoded_bfloat16(codes))
