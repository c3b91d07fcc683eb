// The assignment kernels for scores stored as float16.
#include "assignment/entry.h"

namespace lmcfast::cuda {

const Entry kFloat16 = make_entry<Float16>();

}  // namespace lmcfast::cuda
