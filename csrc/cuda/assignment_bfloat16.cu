// The assignment kernels for scores stored as bfloat16.
#include "assignment/entry.h"

namespace lmcfast::cuda {

const Entry kBfloat16 = make_entry<Bfloat16>();

}  // namespace lmcfast::cuda
