// numpy arrays -> tensors by their units (units.h), with the GIL released. lmcfast/matching/units.py is the caller and
// has the readable twins.
#include "lmcfast/units.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

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

template <class T>
HeldPair<T> held_pair(const py::tuple& entry) {
  const py::array a = entry[0], b = entry[1];
  HeldPair<T> pair{static_cast<const T*>(a.data()), static_cast<const T*>(b.data()), nullptr, nullptr, {}, {}, {}, 0};
  if (entry[2].is_none()) {
    if (!is_dense(a) || !is_dense(b) || a.size() != b.size())
      throw py::value_error("pairs: expected dense arrays of one shape");
    pair.shape[0] = pair.shape[1] = 1;
    pair.shape[2] = a.size();
    return pair;
  }
  py::array a_to = entry[2], b_to = entry[3];
  const int64_t item = int64_t(sizeof(T));
  for (const py::array& x : {a, b, a_to, b_to})
    if (x.ndim() != 3 || x.dtype().num() != a.dtype().num()) throw py::value_error("pairs: expected three dimensions");
  for (int k = 0; k < 3; ++k) {
    pair.shape[k] = a.shape(k);
    pair.a_strides[k] = a.strides(k) / item;
    pair.b_strides[k] = b.strides(k) / item;
    for (const py::array& x : {b, a_to, b_to})
      if (x.shape(k) != a.shape(k)) throw py::value_error("pairs: expected one shape");
  }
  pair.target_stride = a_to.strides(0) / item;
  for (const py::array& x : {a_to, b_to})
    if (x.size() &&
        ((x.shape(2) > 1 && x.strides(2) != item) || (x.shape(1) > 1 && x.strides(1) != x.shape(2) * item) ||
         (x.shape(0) > 1 && x.strides(0) != a_to.strides(0))))
      throw py::value_error("pairs: expected targets dense in their last two axes");
  pair.a_to = static_cast<T*>(a_to.mutable_data());
  pair.b_to = static_cast<T*>(b_to.mutable_data());
  return pair;
}

template <class T>
PairSums hold_all(const py::list& pairs) {
  std::vector<HeldPair<T>> held;
  for (const py::handle& entry : pairs) held.push_back(held_pair<T>(py::reinterpret_borrow<py::tuple>(entry)));
  PairSums sums{};
  const py::gil_scoped_release unlocked;
  for (const HeldPair<T>& pair : held) hold_pair(pair, sums);
  return sums;
}

// hold_pairs([(a, b, a_to, b_to), ...]) -> (|a|^2, |b|^2, <a, b>), over all pairs. Three dimensions and any strides;
// the targets may be None where a and b are dense and stay. All of one type, float32 or float64.
py::tuple hold_pairs(const py::list& pairs) {
  if (pairs.empty()) return py::make_tuple(0.0, 0.0, 0.0);
  const py::array first = py::reinterpret_borrow<py::tuple>(pairs[0])[0];
  const int type = first.dtype().num();
  if (type != py::dtype::num_of<float>() && type != py::dtype::num_of<double>())
    throw py::value_error("pairs: expected float32 or float64");
  for (const py::handle& entry : pairs)
    for (int k = 0; k < 2; ++k)
      if (py::array(py::reinterpret_borrow<py::tuple>(entry)[size_t(k)]).dtype().num() != type)
        throw py::value_error("pairs: expected one type");
  const PairSums sums = type == py::dtype::num_of<float>() ? hold_all<float>(pairs) : hold_all<double>(pairs);
  return py::make_tuple(sums.square_a, sums.square_b, sums.inner);
}

}  // namespace

void bind_units(py::module_& m) {
  m.def("unit_rises", unit_rises, "See csrc/bindings/units.cpp.");
  m.def("move_units", move_all, "See csrc/bindings/units.cpp.");
  m.def("unit_differences", differences_between, "See csrc/bindings/units.cpp.");
  m.def("hold_pairs", hold_pairs, "See csrc/bindings/units.cpp.");
  m.def(
      "prefer_large_pages", [](py::array a) { prefer_large_pages(a.mutable_data(), size_t(a.nbytes())); },
      "Asks the system to back an array's memory with large pages.");
}

}  // namespace lmcfast
