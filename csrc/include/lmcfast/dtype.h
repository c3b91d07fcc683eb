// How numbers are stored, as the codes that pass from Python to the kernels.
#pragma once

namespace lmcfast {

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

}  // namespace lmcfast
