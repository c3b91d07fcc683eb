"""Permutation specs: data, tables, verification, and what the matching needs of them."""

from __future__ import annotations

from .checks import check_finite, check_params, check_permutations
from .comparison import difference
from .configuration import spec_for
from .derivation import derive_spec
from .gather import permute_tensor
from .layout import Atom, Case, Concat, Fixed, Layout, Product, format_layout, parse_layout
from .names import NameMap, match_names
from .places import Place, group_places, unfold
from .report import SpecReport
from .similarity import similarity
from .spec import Group, PermutationSpec
from .stacks import stacked, unstacked
from .tables import feed_forward_spec, resnet_spec, spec_from_params, vgg_spec
from .verify import VerifyReport, verify_spec

__all__ = [
    "Atom",
    "Case",
    "Concat",
    "Fixed",
    "Group",
    "Layout",
    "NameMap",
    "PermutationSpec",
    "Place",
    "Product",
    "SpecReport",
    "VerifyReport",
    "check_finite",
    "check_params",
    "check_permutations",
    "derive_spec",
    "difference",
    "feed_forward_spec",
    "format_layout",
    "group_places",
    "match_names",
    "parse_layout",
    "permute_tensor",
    "resnet_spec",
    "similarity",
    "spec_for",
    "spec_from_params",
    "stacked",
    "unfold",
    "unstacked",
    "verify_spec",
    "vgg_spec",
]
