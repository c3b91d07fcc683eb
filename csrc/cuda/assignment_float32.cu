// The assignment kernels for scores stored as float32.
#include "assignment/entry.h"

namespace lmcfast::cuda {

const Entry kFloat32 = make_entry<float>();

}  // namespace lmcfast::cuda
