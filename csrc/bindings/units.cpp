// numpy arrays -> tensors by their units (units.h), with the GIL released. lmcfast/matching/units.py is the caller and
// has the readable twins.
#include "lmcfast/units.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

bool is_dense(const py::array& a) { return a.flags() & py::array::c_style; }

UnitShape shape_by(const py::array& a, int64_t axis) {
  if (axis < 0 || axis >= a.ndim()) throw py::value_error("axis: out of range");
  UnitShape shape{1, a.shape(axis), 1};
  for (int64_t k = 0; k < axis; ++k) shape.outer *= a.shape(k);
  for (int64_t k = axis + 1; k < a.ndim(); ++k) shape.inner *= a.shape(k);
  return shape;
}

const int64_t* order_of(const py::array& a) {
  if (a.ndim() != 1 || !py::isinstance<py::array_t<int64_t, py::array::c_style>>(a))
    throw py::value_error("permutation: expected int64, one dimension, dense");
  return static_cast<const int64_t*>(a.data());
}

// The move between two permutations, and the memory that it points to.
struct Between {
  std::vector<int64_t> memory;
  UnitMove move;
  int64_t size;

  Between(const py::array& before, const py::array& now) : memory(size_t(3 * before.size())), size(before.size()) {
    const int64_t *const from = order_of(before), *const to = order_of(now);
    if (now.size() != size) throw py::value_error("permutations: expected the same length");
    int64_t *const units = memory.data(), *const sources = units + size;
    check_permutation(from);
    check_permutation(to);
    move = {units, sources, move_between(from, to, size, units, sources, sources + size)};
  }

 private:
  // A unit that came twice would send the kernels out of their memory.
  void check_permutation(const int64_t* order) {
    int64_t* const seen = memory.data();
    for (int64_t i = 0; i < size; ++i) seen[i] = 0;
    for (int64_t i = 0; i < size; ++i)
      if (order[i] < 0 || order[i] >= size || seen[order[i]]++) throw py::value_error("expected a permutation");
  }
};

// Two dense tensors of one shape and type, by the units of an axis.
struct Pair {
  py::array first, second;
  UnitShape shape;
  bool is_float;

  Pair(const py::handle& entry, int64_t size) {
    const py::tuple fields = py::reinterpret_borrow<py::tuple>(entry);
    if (fields.size() != 3) throw py::value_error("tensors: expected (array, array, axis)");
    first = fields[0];
    second = fields[1];
    shape = shape_by(first, fields[2].cast<int64_t>());
    is_float = first.dtype().num() == py::dtype::num_of<float>();
    if (!is_float && first.dtype().num() != py::dtype::num_of<double>())
      throw py::value_error("tensors: expected float32 or float64");
    if (!is_dense(first) || !is_dense(second) || first.size() != second.size() ||
        first.dtype().num() != second.dtype().num() || shape.size != size)
      throw py::value_error("tensors: expected dense arrays of one shape and type with the group on the axis");
  }
};

std::vector<Pair> pairs_of(const py::list& tensors, int64_t size) {
  std::vector<Pair> pairs;
  pairs.reserve(tensors.size());
  for (const py::handle& entry : tensors) pairs.emplace_back(entry, size);
  return pairs;
}

// unit_rises(before, now, [(a, b, axis), ...]) -> (units that get another source, [rise of <a, b> of each tensor])
py::tuple unit_rises(const py::array& before, const py::array& now, const py::list& tensors) {
  const Between between(before, now);
  const std::vector<Pair> pairs = pairs_of(tensors, between.size);
  std::vector<double> rises(pairs.size(), 0.0);
  if (between.move.count) {
    const py::gil_scoped_release unlocked;
    for (size_t k = 0; k < pairs.size(); ++k) {
      const Pair& p = pairs[k];
      const void *const a = p.first.data(), *const b = p.second.data();
      rises[k] = p.is_float ? rise(static_cast<const float*>(a), static_cast<const float*>(b), p.shape, between.move)
                            : rise(static_cast<const double*>(a), static_cast<const double*>(b), p.shape, between.move);
    }
  }
  py::list found;
  for (double value : rises) found.append(value);
  return py::make_tuple(between.move.count, found);
}

// move_units(before, now, [(to, from, axis), ...]): `to` may be `from`
void move_all(const py::array& before, const py::array& now, const py::list& tensors) {
  const Between between(before, now);
  std::vector<Pair> pairs = pairs_of(tensors, between.size);
  std::vector<void*> targets;
  for (Pair& p : pairs) targets.push_back(p.first.mutable_data());
  const py::gil_scoped_release unlocked;
  for (size_t k = 0; k < pairs.size(); ++k) {
    const Pair& p = pairs[k];
    const void* const from = p.second.data();
    if (p.is_float) move_units(static_cast<float*>(targets[k]), static_cast<const float*>(from), p.shape, between.move);
    else move_units(static_cast<double*>(targets[k]), static_cast<const double*>(from), p.shape, between.move);
  }
}

template <class T>
void differences(const py::array& a, const py::array& b, void* a_out, void* b_out, const UnitShape& shape,
                 const std::vector<int64_t>& indices) {
  const int64_t count = int64_t(indices.size() / 3);
  const int64_t* const units = indices.data();
  const void *const a_data = a.data(), *const b_data = b.data();
  const py::gil_scoped_release unlocked;
  unit_differences(static_cast<T*>(a_out), static_cast<T*>(b_out), static_cast<const T*>(a_data),
                   static_cast<const T*>(b_data), shape, units, units + count, units + 2 * count, count);
}

// unit_differences(before, now, (a, b, axis), a_out, b_out): of the positions where the permutations differ, a, and b
// at `now` less b at `before`. The outputs are dense with as many units on the axis as there are such positions.
void differences_between(const py::array& before, const py::array& now, const py::tuple& tensors, py::array a_out,
                         py::array b_out) {
  const Between between(before, now);
  const Pair pair(tensors, between.size);
  const int64_t count = between.move.count, numbers = pair.shape.outer * count * pair.shape.inner;
  for (const py::array& out : {a_out, b_out})
    if (!is_dense(out) || out.size() != numbers || out.dtype().num() != pair.first.dtype().num())
      throw py::value_error("outputs: expected dense arrays with the moved units on the axis");
  const int64_t *const old_order = order_of(before), *const new_order = order_of(now);
  std::vector<int64_t> indices(size_t(3 * count));
  for (int64_t k = 0; k < count; ++k) {
    const int64_t unit = between.move.units[k];
    indices[size_t(k)] = unit;
    indices[size_t(count + k)] = new_order[unit];
    indices[size_t(2 * count + k)] = old_order[unit];
  }
  void *const to_a = a_out.mutable_data(), *const to_b = b_out.mutable_data();
  if (pair.is_float) differences<float>(pair.first, pair.second, to_a, to_b, pair.shape, indices);
  else differences<double>(pair.first, pair.second, to_a, to_b, pair.shape, indices);
}

// A row of hold_pairs' table.
enum Column { kFirst, kMiddle, kLast, kStride0, kStride1, kStride2, kOffset, kTargetStride, kTensor, kColumns };

template <class T>
void hold_all(const std::vector<py::array>& a, const std::vector<py::array>& b, T* a_to, T* b_to, const int64_t* table,
              std::vector<PairSums>& sums) {
  std::vector<const T*> sources;
  for (size_t k = 0; k < a.size(); ++k) {
    sources.push_back(static_cast<const T*>(a[k].data()));
    sources.push_back(static_cast<const T*>(b[k].data()));
  }
  const py::gil_scoped_release unlocked;
  for (size_t k = 0; k < a.size(); ++k, table += kColumns) {
    const bool stays = table[kOffset] < 0;
    HeldPair<T> pair{sources[2 * k],
                     sources[2 * k + 1],
                     stays ? nullptr : a_to + table[kOffset],
                     stays ? nullptr : b_to + table[kOffset],
                     {},
                     {},
                     {},
                     table[kTargetStride]};
    for (int axis = 0; axis < 3; ++axis) {
      pair.shape[axis] = table[kFirst + axis];
      pair.a_strides[axis] = pair.b_strides[axis] = table[kStride0 + axis];
    }
    hold_pair(pair, sums[size_t(table[kTensor])]);
  }
}

// One row of the table: inside its source and its target?
void check_row(const int64_t* row, int64_t source_size, int64_t target_size, int64_t tensors) {
  int64_t last_source = 0;
  for (int axis = 0; axis < 3; ++axis) {
    if (row[kFirst + axis] < 1 || row[kStride0 + axis] < 0)
      throw py::value_error("table: expected shapes of at least 1");
    last_source += (row[kFirst + axis] - 1) * row[kStride0 + axis];
  }
  const int64_t plane = row[kMiddle] * row[kLast];
  const int64_t last_target = row[kOffset] + (row[kFirst] - 1) * row[kTargetStride] + plane - 1;
  const bool stays = row[kOffset] < 0;
  if (stays ? source_size != row[kFirst] * plane : last_source >= source_size || last_target >= target_size)
    throw py::value_error("table: a tensor does not fit");
  if (row[kTargetStride] < 0 || row[kTensor] < 0 || row[kTensor] >= tensors)
    throw py::value_error("table: out of range");
}

// hold_pairs([a, ...], [b, ...], a_to, b_to, table, tensors) -> [(|a|^2, |b|^2, <a, b>), ...] of each held tensor.
// Copies parts into the held tensors' memory. All dense and of one type, float32 or float64; the k-th row of the table,
// int64, is of the k-th a and b: the shape in the order held (first, middle, last), its strides in the source, where it
// begins in the target (-1: it is not copied), the stride of its first axis there, and the held tensor it belongs to.
py::list hold_pairs(const py::list& a, const py::list& b, py::array a_to, py::array b_to, const py::array& table,
                    int64_t tensors) {
  const int type = a_to.dtype().num();
  const bool is_float = type == py::dtype::num_of<float>();
  if (!is_float && type != py::dtype::num_of<double>()) throw py::value_error("targets: expected float32 or float64");
  if (!py::isinstance<py::array_t<int64_t, py::array::c_style>>(table) || table.ndim() != 2 ||
      table.shape(1) != kColumns || table.shape(0) != int64_t(a.size()) || a.size() != b.size())
    throw py::value_error("table: expected a row of int64 for each tensor");
  const int64_t* const rows = static_cast<const int64_t*>(table.data());
  std::vector<py::array> from_a, from_b;
  for (size_t k = 0; k < a.size(); ++k) {
    from_a.push_back(a[k]);
    from_b.push_back(b[k]);
    check_row(rows + k * kColumns, from_a[k].size(), a_to.size(), tensors);
    for (const py::array& x : {from_a[k], from_b[k]})
      if (!is_dense(x) || x.dtype().num() != type || x.size() != from_a[k].size())
        throw py::value_error("pairs: expected dense arrays of one size and one type");
  }
  if (!is_dense(a_to) || !is_dense(b_to) || b_to.dtype().num() != type || a_to.size() != b_to.size())
    throw py::value_error("targets: expected dense arrays of one size and type");
  std::vector<PairSums> sums(size_t(tensors), PairSums{});
  void *const to_a = a_to.mutable_data(), *const to_b = b_to.mutable_data();
  if (is_float) hold_all(from_a, from_b, static_cast<float*>(to_a), static_cast<float*>(to_b), rows, sums);
  else hold_all(from_a, from_b, static_cast<double*>(to_a), static_cast<double*>(to_b), rows, sums);
  py::list found;
  for (const PairSums& s : sums) found.append(py::make_tuple(s.square_a, s.square_b, s.inner));
  return found;
}

template <class T>
double inner_product(const py::array& a, const py::array& b) {
  const HeldPair<T> pair{
      static_cast<const T*>(a.data()), static_cast<const T*>(b.data()), nullptr, nullptr, {1, 1, a.size()}, {}, {}, 0};
  PairSums sums{};
  const py::gil_scoped_release unlocked;
  hold_pair(pair, sums);
  return sums.inner;
}

// inner_products([(a, b), ...]) -> [<a, b>, ...], each two dense arrays of one size and type.
py::list inner_products(const py::list& pairs) {
  py::list found;
  for (const py::handle& entry : pairs) {
    const py::tuple fields = py::reinterpret_borrow<py::tuple>(entry);
    const py::array a = fields[0], b = fields[1];
    const int type = a.dtype().num();
    const bool is_float = type == py::dtype::num_of<float>();
    if (!is_dense(a) || !is_dense(b) || a.size() != b.size() || type != b.dtype().num() ||
        (!is_float && type != py::dtype::num_of<double>()))
      throw py::value_error("inner_products: expected dense arrays of one size and type, float32 or float64");
    found.append(is_float ? inner_product<float>(a, b) : inner_product<double>(a, b));
  }
  return found;
}

// A matrix (n, depth) of float32 by its rows.
UnitRows rows_of(const py::array& a, int64_t n, int64_t depth) {
  constexpr int64_t kSize = int64_t(sizeof(float));
  if (a.ndim() != 2 || a.dtype().num() != py::dtype::num_of<float>() || a.shape(0) != n || a.shape(1) != depth)
    throw py::value_error("terms: expected float32 matrices (n, depth)");
  const int64_t unit_stride = a.strides(0) / kSize, stride = a.strides(1) / kSize;
  if (a.strides(0) % kSize || a.strides(1) % kSize || (unit_stride != 1 && stride != 1))
    throw py::value_error("terms: expected units, or their numbers, side by side");
  return {static_cast<const float*>(a.data()), unit_stride, stride};
}

// add_small_products(out, [(a, b, weight), ...], keep): out (n, n) becomes the sum of weight * a b^T, added to what it
// is if `keep`.
void add_small_products(py::array out, const py::list& terms, bool keep) {
  const int64_t n = out.ndim() == 2 ? out.shape(0) : 0;
  if (!is_dense(out) || out.dtype().num() != py::dtype::num_of<float>() || n < 1 || n > kMostSmall || n % kSmallStep ||
      out.shape(1) != n)
    throw py::value_error("out: expected dense float32 (n, n), n a multiple of 16 and at most 64");
  float* const to = static_cast<float*>(out.mutable_data());
  if (!keep) std::fill_n(to, n * n, 0.0f);
  for (const py::handle& entry : terms) {
    const py::tuple fields = py::reinterpret_borrow<py::tuple>(entry);
    if (fields.size() != 3) throw py::value_error("terms: expected (a, b, weight)");
    const py::array a = fields[0], b = fields[1];
    const int64_t depth = a.ndim() == 2 ? a.shape(1) : 0;
    const UnitRows rows_a = rows_of(a, n, depth), rows_b = rows_of(b, n, depth);
    const float weight = fields[2].cast<float>();
    const py::gil_scoped_release unlocked;
    add_product(to, n, depth, weight, rows_a, rows_b);
  }
}

}  // namespace

void bind_units(py::module_& m) {
  m.def("unit_rises", unit_rises, "See csrc/bindings/units.cpp.");
  m.def("move_units", move_all, "See csrc/bindings/units.cpp.");
  m.def("unit_differences", differences_between, "See csrc/bindings/units.cpp.");
  m.def("hold_pairs", hold_pairs, "See csrc/bindings/units.cpp.");
  m.def("add_small_products", add_small_products, "See csrc/bindings/units.cpp.");
  m.def("inner_products", inner_products, "See csrc/bindings/units.cpp.");
  m.def(
      "prefer_large_pages", [](py::array a) { prefer_large_pages(a.mutable_data(), size_t(a.nbytes())); },
      "Asks the system to back an array's memory with large pages.");
}

}  // namespace lmcfast
