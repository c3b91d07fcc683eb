#pragma once

#include "level.h"

namespace lmcfast {

// The level in use: the best one that is built and that the processor supports, or the lower one that LMCFAST_CPU
// names.
const Level& level();

}  // namespace lmcfast
