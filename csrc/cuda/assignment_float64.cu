// The assignment kernels for scores stored as float64.
#include "assignment/entry.h"

namespace lmcfast::cuda {

const Entry kFloat64 = make_entry<double>();

}  // namespace lmcfast::cuda
