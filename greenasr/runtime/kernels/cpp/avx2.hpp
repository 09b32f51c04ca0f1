// The integer sums of AVX2; `GREENASR_VNNI` asks for vpdpbusd on 32 bytes, else two multiplications in 16 bits.
#include <immintrin.h>

#include "kernels.hpp"

namespace greenasr {
namespace GREENASR_ISA_NAMESPACE {

typedef int32_t word __attribute__((may_alias, aligned(1)));

struct Isa {
  static constexpr int kFrames = 4;  // of a convolution at once
  static constexpr int kWide = 4, kFew = 8, kPanel = 1;
  static constexpr bool kSmallDiffer = true;  // below 16 no product overflows 16 bits
  template <int B, int MM>
  static constexpr int at_once() {
    return MM <= 2 ? 2 : 1;
  }

#if defined(GREENASR_VNNI)
  static int off(const Part& p) { return p.off; }
  template <int B>
  static inline __m256i dot(__m256i sum, __m256i u, __m256i x) {
#if defined(GREENASR_EMULATE)
    alignas(32) uint8_t digits[32];
    alignas(32) int8_t rows[32];
    alignas(32) int32_t sums[8];
    put(digits, u), put(rows, x), put(sums, sum);
    for (int i = 0; i < 32; i++) sums[i / 4] += digits[i] * rows[i];
    return get(reinterpret_cast<const uint8_t*>(sums));
#else
    return _mm256_dpbusd_avx_epi32(sum, u, x);
#endif
  }
#else
  // Digits of 8 bits would overflow 16: they are made signed, and the sign moves to the activation.
  static int off(const Part& p) { return p.bits == 8 ? p.off - 128 : p.off; }
  template <int B>
  static inline __m256i dot(__m256i sum, __m256i u, __m256i x) {
    if constexpr (B == 8) {
      u = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
      x = _mm256_sign_epi8(x, u);
      u = _mm256_abs_epi8(u);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1)));
  }
#endif

  static double peak(long n) {
    __m256i sum[8], x = _mm256_set1_epi8(1);
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        asm volatile("" : "+x"(x));
        sum[i] = dot<4>(sum[i], x, x);
      }
    }
    for (int i = 1; i < 8; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    asm volatile("" ::"x"(sum[0]));
    return double(n) * 8 * 32 * 2;
  }

  template <int B>
  static inline __m256i digit(__m256i v, int j) {
    if constexpr (B == 8) return v;
    return _mm256_and_si256(_mm256_srli_epi16(v, j * B), _mm256_set1_epi8((1 << B) - 1));
  }
  static inline __m256i get(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  template <class T>
  static inline void put(T* p, __m256i v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static inline __m256i four(const int8_t* a) { return _mm256_set1_epi32(*reinterpret_cast<const word*>(a)); }

  template <int B, int MM, int NB>
  static void packed(const uint8_t* w, size_t block, const int8_t* a, size_t next, int depth, int32_t* sums) {
    constexpr int per = 8 / B, Z = 16 / per, H = 2 * NB;  // a block is two halves of 8 outputs
    constexpr size_t tile = size_t(64) * Z;
    __m256i acc[MM][H];
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) acc[m][h] = _mm256_setzero_si256();
    for (int k = 0; k < depth; k++)
      for (int z = 0; z < Z; z++) {
        __m256i v[H];
#pragma GCC unroll 8
        for (int h = 0; h < H; h++) v[h] = get(w + h / 2 * block + k * tile + z * 64 + h % 2 * 32);
#pragma GCC unroll 8
        for (int j = 0; j < per; j++) {
          __m256i u[H];
#pragma GCC unroll 8
          for (int h = 0; h < H; h++) u[h] = digit<B>(v[h], j);
#pragma GCC unroll 8
          for (int m = 0; m < MM; m++) {
            __m256i x = four(a + k * next + m * kDepth + (z * per + j) * 4);
#pragma GCC unroll 8
            for (int h = 0; h < H; h++) acc[m][h] = dot<B>(acc[m][h], u[h], x);
          }
        }
      }
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) put(sums + (m * H + h) * 8, acc[m][h]);
  }

  template <int MM, int NB, bool Small>
  static void tile(const uint8_t* w, size_t block, const int8_t* a, size_t next, int from, int to, int32_t* sums) {
    constexpr int H = 2 * NB;
    __m256i acc[MM][H];
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) acc[m][h] = _mm256_setzero_si256();
    for (int s = from; s < to; s++) {
      const int8_t* x = a + size_t(s / 16) * next + s % 16 * 4;
      __m256i u[H];
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) u[h] = get(w + h / 2 * block + size_t(s) * 64 + h % 2 * 32);
#pragma GCC unroll 8
      for (int m = 0; m < MM; m++) {
        __m256i v = four(x + m * kDepth);
#pragma GCC unroll 8
        for (int h = 0; h < H; h++) acc[m][h] = dot<Small ? 4 : 8>(acc[m][h], u[h], v);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) put(sums + (m * H + h) * 8, acc[m][h]);
  }

  template <int B>
  static void unpack(const uint8_t* from, uint8_t* to) {
    constexpr int per = 8 / B;
    for (int z = 0; z < 16 / per; z++)
      for (int h = 0; h < 2; h++) {
        __m256i v = get(from + z * 64 + h * 32);
#pragma GCC unroll 8
        for (int j = 0; j < per; j++) put(to + (z * per + j) * 64 + h * 32, digit<B>(v, j));
      }
  }
};

}  // namespace GREENASR_ISA_NAMESPACE
}  // namespace greenasr
