// Rounds every operation in every direction on numbers from a file, for a comparison in exact arithmetic:
// `numbers IN OUT`. IN: records of Operands; OUT: as many of Results. Bit patterns, native byte order.
#include <cstdlib>

#include "check.h"

namespace {

struct Operands {
  float x, y, z;
  int i;
  double a, b, c;
};
// In the order of the names: to nearest, up, down, towards zero.
struct Results {
  float add[4], subtract[4], multiply[4], divide[4], fused[4], narrow[4], integer[4];
  unsigned short half[4], bfloat16[4];
  float from_half, from_bfloat16;  // of the low 16 bits of `i`
  double wide_add[4], wide_subtract[4], wide_multiply[4], wide_divide[4], wide_fused[4];
};

#define FOUR(out, name, ...)                                                                         \
  out[0] = name##_rn(__VA_ARGS__), out[1] = name##_ru(__VA_ARGS__), out[2] = name##_rd(__VA_ARGS__), \
  out[3] = name##_rz(__VA_ARGS__)

__device__ Results round_all(const Operands& o) {
  Results r;
  FOUR(r.add, __fadd, o.x, o.y);
  FOUR(r.subtract, __fsub, o.x, o.y);
  FOUR(r.multiply, __fmul, o.x, o.y);
  FOUR(r.divide, __fdiv, o.x, o.y);
  FOUR(r.fused, __fmaf, o.x, o.y, o.z);
  FOUR(r.narrow, __double2float, o.a);
  FOUR(r.integer, __int2float, o.i);
  FOUR(r.wide_add, __dadd, o.a, o.b);
  FOUR(r.wide_subtract, __dsub, o.a, o.b);
  FOUR(r.wide_multiply, __dmul, o.a, o.b);
  FOUR(r.wide_divide, __ddiv, o.a, o.b);
  FOUR(r.wide_fused, __fma, o.a, o.b, o.c);
  const __half half[] = {__float2half_rn(o.x), __float2half_ru(o.x), __float2half_rd(o.x), __float2half_rz(o.x)};
  for (int k = 0; k < 4; ++k) r.half[k] = __half_as_ushort(half[k]);
  const __nv_bfloat16 bfloat16[] = {__float2bfloat16_rn(o.x), __float2bfloat16_ru(o.x), __float2bfloat16_rd(o.x),
                                    __float2bfloat16_rz(o.x)};
  for (int k = 0; k < 4; ++k) r.bfloat16[k] = __bfloat16_as_ushort(bfloat16[k]);
  const auto low = static_cast<unsigned short>(o.i);
  r.from_half = __half2float(__ushort_as_half(low));
  r.from_bfloat16 = __bfloat162float(__ushort_as_bfloat16(low));
  return r;
}

__global__ void round_kernel(const Operands* operands, Results* results, int count) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) results[i] = round_all(operands[i]);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return EXIT_FAILURE;
  std::FILE* in = std::fopen(arguments[1], "rb");
  std::FILE* out = std::fopen(arguments[2], "wb");
  if (!in || !out) return EXIT_FAILURE;
  std::fseek(in, 0, SEEK_END);
  const int records = int(std::ftell(in) / long(sizeof(Operands)));
  std::rewind(in);
  test::Array<Operands> operands(records);
  test::Array<Results> results(records);
  bool good = std::fread(operands.data, sizeof(Operands), size_t(records), in) == size_t(records);
  const lmcfast::cuda::Launch launch{unsigned(records + 127) / 128, 128};
  good = good && test::runs(launch, round_kernel, operands.data, results.data, records);
  good = good && std::fwrite(results.data, sizeof(Results), size_t(records), out) == size_t(records);
  std::fclose(in);
  return good && std::fclose(out) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
