// Plain C++: the path that every machine has, and the one that the others must equal bit for bit.
#include "kernels.hpp"

#define GREENASR_ISA_NAMESPACE portable
namespace greenasr {
namespace portable {

struct Isa {
  static constexpr int kFrames = 4;  // of a convolution at once
  static constexpr int kWide = 4, kFew = 0, kPanel = 1;
  static constexpr int kEight = 1;
  template <int B>
  static constexpr int unpacked() {
    return 8;
  }
  template <int B, int MM>
  static constexpr int at_once() {
    return 1;
  }
  static int off(const Part& p) { return p.off; }

  // What the compiler makes of the plain loop, on operands that stay in the first cache.
  static double peak(long n) {
    alignas(64) static uint8_t w[4096] = {1};
    alignas(64) static int8_t a[256] = {1};
    alignas(64) int32_t sums[64];
    for (long k = 0; k < n; k++) {
      tile<4, 1, 8>(w, 4096, a, 64, 0, 16, sums);
      asm volatile("" ::"r"(sums) : "memory");
    }
    return double(n) * 4 * 1024 * 2;
  }

  template <int B, int MM, int NB>
  static void packed(const uint8_t*, size_t, const int8_t*, size_t, int, int32_t*) {}

  template <int MM, int NB, int B>
  static void tile(const uint8_t* w, size_t block, const int8_t* a, size_t next, int from, int to, int32_t* sums) {
    for (int i = 0; i < MM * NB * kLanes; i++) sums[i] = 0;
    for (int s = from; s < to; s++)
      for (int m = 0; m < MM; m++) {
        const int8_t* x = a + size_t(s / 16) * next + size_t(m) * kDepth + s % 16 * 4;
        for (int n = 0; n < NB; n++) {
          const uint8_t* u = w + n * block + size_t(s) * 64;
          int32_t* to_sums = sums + (m * NB + n) * kLanes;
          for (int i = 0; i < kLanes; i++)
            to_sums[i] += u[4 * i] * x[0] + u[4 * i + 1] * x[1] + u[4 * i + 2] * x[2] + u[4 * i + 3] * x[3];
        }
      }
  }

  template <int B>
  static void unpack(const uint8_t* from, uint8_t* to) {
    constexpr int per = 8 / B;
    for (int z = 0; z < 16 / per; z++)
      for (int j = 0; j < per; j++)
        for (int i = 0; i < 64; i++) to[(z * per + j) * 64 + i] = (from[z * 64 + i] >> (j * B)) & ((1 << B) - 1);
  }
};

}  // namespace portable
}  // namespace greenasr
#include "body.hpp"

namespace greenasr {
const Kernels kPortable{"portable", 1, 1,
    portable::quantize, portable::product, portable::log_sum, portable::lstm_cell, portable::depthwise,
    portable::layer_norm, portable::attention, portable::read, portable::Isa::peak, portable::generate};
}
