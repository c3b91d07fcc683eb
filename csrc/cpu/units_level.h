// What one vector level offers for tensors by their units (units.h).
#pragma once

#include "lmcfast/units.h"

namespace lmcfast {

template <class T>
struct UnitKernels {
  double (*rise)(const T*, const T*, const UnitShape&, const UnitMove&);
  void (*move_units)(T*, const T*, const UnitShape&, const UnitMove&);
  void (*unit_differences)(T*, T*, const T*, const T*, const UnitShape&, const int64_t*, const int64_t*, const int64_t*,
                           int64_t);
  void (*hold_pair)(const HeldPair<T>&, PairSums&);
};

struct UnitLevel {
  const char* name;  // as Level::name
  UnitKernels<float> of_float;
  UnitKernels<double> of_double;
  void (*add_product)(float*, int64_t, int64_t, float, const UnitRows&, const UnitRows&);
};

}  // namespace lmcfast
