// Addresses and sizes as plain integers -> the calls of cuda_similarity.h. Python makes the tables as arrays of int64.
#include "lmcfast/cuda_similarity.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>

#include "cuda_bindings.h"
#include "lmcfast/cuda_devices.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void check(int status, const char* what) {
  if (status) throw std::runtime_error(std::string(what) + ": " + cuda::error_text(status));
}

void similarity(uintptr_t groups, int64_t group_count, int64_t tiles, uintptr_t terms, int products, bool tensor_cores,
                uintptr_t stream) {
  cuda::ProductCall call{};
  call.groups = at<const cuda::ProductGroup>(groups);
  call.terms = at<const cuda::ProductTerm>(terms);
  call.group_count = group_count;
  call.tiles = tiles;
  call.products = Dtype(products);
  call.tensor_cores = tensor_cores;
  call.stream = at<void>(stream);
  const py::gil_scoped_release unlocked;
  check(cuda::similarity(call), "similarity");
}

void inner_products(uintptr_t products, int64_t count, int64_t chunks, uintptr_t partial, uintptr_t values,
                    uintptr_t stream) {
  cuda::InnerCall call{};
  call.products = at<const cuda::InnerProduct>(products);
  call.count = count;
  call.chunks = chunks;
  call.partial = at<double>(partial);
  call.values = at<double>(values);
  call.stream = at<void>(stream);
  const py::gil_scoped_release unlocked;
  check(cuda::inner_products(call), "inner products");
}

void magnitudes(uintptr_t entries, int64_t count, int64_t chunks, uintptr_t partial, uintptr_t values,
                uintptr_t stream) {
  cuda::MagnitudeCall call{};
  call.entries = at<const cuda::MagnitudeEntry>(entries);
  call.count = count;
  call.chunks = chunks;
  call.partial = at<cuda::Magnitude>(partial);
  call.values = at<cuda::Magnitude>(values);
  call.stream = at<void>(stream);
  const py::gil_scoped_release unlocked;
  check(cuda::magnitudes(call), "magnitudes");
}

}  // namespace

void bind_cuda_similarity(py::module_& m) {
  m.attr("product_tile") = cuda::kProductTile;
  m.attr("inner_chunk") = cuda::kInnerChunk;
  m.attr("product_group_words") = sizeof(cuda::ProductGroup) / 8;
  m.attr("product_term_words") = sizeof(cuda::ProductTerm) / 8;
  m.attr("inner_product_words") = sizeof(cuda::InnerProduct) / 8;
  m.attr("magnitude_entry_words") = sizeof(cuda::MagnitudeEntry) / 8;
  m.def("similarity", similarity, py::arg("groups"), py::arg("group_count"), py::arg("tiles"), py::arg("terms"),
        py::arg("products"), py::arg("tensor_cores"), py::arg("stream"), "See csrc/include/lmcfast/cuda_similarity.h.");
  m.def("inner_products", inner_products, py::arg("products"), py::arg("count"), py::arg("chunks"), py::arg("partial"),
        py::arg("values"), py::arg("stream"), "See csrc/include/lmcfast/cuda_similarity.h.");
  m.def("magnitudes", magnitudes, py::arg("entries"), py::arg("count"), py::arg("chunks"), py::arg("partial"),
        py::arg("values"), py::arg("stream"), "See csrc/include/lmcfast/cuda_similarity.h.");
}

}  // namespace lmcfast
