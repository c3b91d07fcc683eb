"""The device modules: `_cuda`, and `_emulated`, which adds the controls of the emulator. Addresses are integers."""

from typing import Any

inner_chunk: int
inner_product_words: int
magnitude_entry_words: int
most_batched: int
most_longer: int
most_shorter: int
product_group_words: int
product_term_words: int
product_tile: int
report_bytes: int

def assignment_batch_workspace(count: int, rows: int, columns: int, dtype: int) -> int: ...
def assignment_lay_out_batch(table: int, count: int, dtype: int) -> int: ...
def assignment_report_fields() -> list[tuple[str, str]]: ...
def assignment_workspace(rows: int, columns: int, dtype: int) -> int: ...
def assignment_workspace_arrays(rows: int, columns: int, dtype: int) -> list[Any]: ...
def device_report() -> dict[str, Any]: ...
def inner_products(products: int, count: int, chunks: int, partial: int, values: int, stream: int) -> None: ...
def magnitudes(entries: int, count: int, chunks: int, partial: int, values: int, stream: int) -> None: ...
def similarity(
    groups: int, group_count: int, tiles: int, terms: int, products: int, tensor_cores: bool, stream: int
) -> None: ...
def solve_assignment(
    scores: int,
    dtype: int,
    rows: int,
    columns: int,
    row_stride: int,
    column_stride: int,
    maximize: bool,
    start_prices: int,
    columns_out: int,
    prices_out: int,
    profits_out: int,
    workspace: int,
    report: int,
    stream: int,
    deterministic: bool = ...,
    step_limit: int = ...,
    resume: bool = ...,
    **tuning: int,
) -> int: ...
def solve_assignment_batch(
    scores: int,
    dtype: int,
    count: int,
    rows: int,
    columns: int,
    batch_stride: int,
    row_stride: int,
    column_stride: int,
    maximize: bool,
    start_prices: int,
    columns_out: int,
    prices_out: int,
    profits_out: int,
    workspace: int,
    reports: int,
    stream: int,
    deterministic: bool = ...,
    step_limit: int = ...,
    **tuning: int,
) -> int: ...
def solve_assignment_ragged(
    table: int,
    dtype: int,
    count: int,
    longest: int,
    maximize: bool,
    start_prices: int,
    columns_out: int,
    prices_out: int,
    profits_out: int,
    workspace: int,
    reports: int,
    stream: int,
    deterministic: bool = ...,
    step_limit: int = ...,
    **tuning: int,
) -> int: ...
def use_device(device: int) -> None: ...
