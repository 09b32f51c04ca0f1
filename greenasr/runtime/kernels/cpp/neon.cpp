// NEON with dot products: sdot multiplies signed by signed, so digits of 8 bits are made signed on the way.
#include <arm_neon.h>

#include "kernels.hpp"

#define GREENASR_ISA_NAMESPACE neon

namespace greenasr {
namespace neon {

struct Isa {
  static constexpr int kFrames = 4;  // of a convolution at once
  static constexpr int kWide = 4, kFew = 8, kPanel = 1;
  static constexpr int kEight = 1;
  template <int B>
  static constexpr int unpacked() {
    return B < 8 ? 4 : 8;
  }
  template <int B, int MM>
  static constexpr int at_once() {
    return 1;
  }
  static int off(const Part& p) { return p.bits == 8 ? p.off - 128 : p.off; }

  static double peak(long n) {
    int32x4_t sum[8];
    int8x16_t x = vdupq_n_s8(1);
    for (int i = 0; i < 8; i++) sum[i] = vdupq_n_s32(0);
    for (long k = 0; k < n; k++) {
      for (int i = 0; i < 8; i++) sum[i] = vdotq_s32(sum[i], x, x);
      asm volatile("" : "+w"(x));
    }
    for (int i = 1; i < 8; i++) sum[0] = vaddq_s32(sum[0], sum[i]);
    asm volatile("" ::"w"(sum[0]));
    return double(n) * 8 * 16 * 2;
  }

  template <int B>
  static inline int8x16_t digit(uint8x16_t v, int j) {
    if constexpr (B == 8) return vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(0x80)));
    return vreinterpretq_s8_u8(vandq_u8(vshlq_u8(v, vdupq_n_s8(int8_t(-j * B))), vdupq_n_u8((1 << B) - 1)));
  }
  static inline int8x16_t four(const int8_t* a) {
    int32_t v;
    __builtin_memcpy(&v, a, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
  }

  template <int B, int MM, int NB>
  static void packed(const uint8_t* w, size_t block, const int8_t* a, size_t next, int depth, int32_t* sums) {
    constexpr int per = 8 / B, Z = 16 / per, H = 4 * NB;  // a block is four quarters of 4 outputs
    constexpr size_t tile = size_t(64) * Z;
    int32x4_t acc[MM][H];
    for (int m = 0; m < MM; m++)
      for (int h = 0; h < H; h++) acc[m][h] = vdupq_n_s32(0);
    for (int k = 0; k < depth; k++)
      for (int z = 0; z < Z; z++) {
        uint8x16_t v[H];
        for (int h = 0; h < H; h++) v[h] = vld1q_u8(w + h / 4 * block + k * tile + z * 64 + h % 4 * 16);
        for (int j = 0; j < per; j++)
          for (int m = 0; m < MM; m++) {
            int8x16_t x = four(a + k * next + m * kDepth + (z * per + j) * 4);
            for (int h = 0; h < H; h++) acc[m][h] = vdotq_s32(acc[m][h], digit<B>(v[h], j), x);
          }
      }
    for (int m = 0; m < MM; m++)
      for (int h = 0; h < H; h++) vst1q_s32(sums + (m * H + h) * 4, acc[m][h]);
  }

  template <int MM, int NB, int B>
  static void tile(const uint8_t* w, size_t block, const int8_t* a, size_t next, int from, int to, int32_t* sums) {
    constexpr int H = 4 * NB;
    int32x4_t acc[MM][H];
    for (int m = 0; m < MM; m++)
      for (int h = 0; h < H; h++) acc[m][h] = vdupq_n_s32(0);
    for (int s = from; s < to; s++) {
      const int8_t* x = a + size_t(s / 16) * next + s % 16 * 4;
      int8x16_t u[H];
      for (int h = 0; h < H; h++) {
        uint8x16_t v = vld1q_u8(w + h / 4 * block + size_t(s) * 64 + h % 4 * 16);
        u[h] = B < 8 ? vreinterpretq_s8_u8(v) : digit<8>(v, 0);
      }
      for (int m = 0; m < MM; m++) {
        int8x16_t v = four(x + m * kDepth);
        for (int h = 0; h < H; h++) acc[m][h] = vdotq_s32(acc[m][h], u[h], v);
      }
    }
    for (int m = 0; m < MM; m++)
      for (int h = 0; h < H; h++) vst1q_s32(sums + (m * H + h) * 4, acc[m][h]);
  }

  template <int B>
  static void unpack(const uint8_t* from, uint8_t* to) {
    constexpr int per = 8 / B;
    for (int z = 0; z < 16 / per; z++)
      for (int h = 0; h < 4; h++) {
        uint8x16_t v = vld1q_u8(from + z * 64 + h * 16);
        for (int j = 0; j < per; j++)
          vst1q_u8(to + (z * per + j) * 64 + h * 16, vreinterpretq_u8_s8(digit<B>(v, j)));
      }
  }
};

}  // namespace neon
}  // namespace greenasr
#include "body.hpp"

namespace greenasr {
const Kernels kNeon{"neon", 2, 1,
    neon::quantize, neon::product, neon::log_sum, neon::lstm_cell, neon::depthwise,
    neon::layer_norm, neon::attention, neon::read, neon::Isa::peak, neon::generate};
}
