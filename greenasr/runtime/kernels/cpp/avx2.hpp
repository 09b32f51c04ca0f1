// The integer sums of AVX2.  With `GREENASR_VNNI` vpdpbusd multiplies 32 bytes and adds in 32 bits.  Without it vpmaddubsw
// leaves pairs in 16 bits, where sums of small digits have room for many: they are widened once every `fours` of four inputs.
#include <immintrin.h>

#include "kernels.hpp"

namespace greenasr {
namespace GREENASR_ISA_NAMESPACE {

typedef int32_t word __attribute__((may_alias, aligned(1)));

struct Isa {
  static constexpr int kFrames = 4;  // of a convolution at once
  static constexpr int kWide = 4, kFew = 8, kPanel = 1;
  static int off(const Part& p) { return p.off; }

  static inline __m256i get(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  template <class T>
  static inline void put(T* p, __m256i v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static inline __m256i four(const int8_t* a) { return _mm256_set1_epi32(*reinterpret_cast<const word*>(a)); }
  template <int B>
  static inline __m256i digit(__m256i v, int j) {
    if constexpr (B == 8) return v;
    return _mm256_and_si256(_mm256_srli_epi16(v, j * B), _mm256_set1_epi8((1 << B) - 1));
  }

  // Bits 4 s … 4 s + 3 of every word to four bytes of 0 or 1.
#define GREENASR_SPREAD
  static inline __m256i spread(__m256i w, int s) {
    const __m256i byte = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    const __m256i its = _mm256_shuffle_epi8(w, _mm256_add_epi8(byte, _mm256_set1_epi8(char(s / 2))));
    return _mm256_min_epu8(_mm256_and_si256(its, _mm256_set1_epi32(s % 2 ? int(0x80402010u) : 0x08040201)), _mm256_set1_epi8(1));
  }

#if defined(GREENASR_VNNI)
  static constexpr int kEight = 1;  // bytes that a digit of 8 bits is unpacked to
  template <int B>
  static constexpr int unpacked() {
    return 8;  // bytes are alike
  }
  template <int B, int MM>
  static constexpr int at_once() {
    return MM <= 2 ? 2 : 1;
  }

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
            for (int h = 0; h < H; h++) acc[m][h] = dot(acc[m][h], u[h], x);
          }
        }
      }
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) put(sums + (m * H + h) * 8, acc[m][h]);
  }

  template <int MM, int NB, int B>
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
        for (int h = 0; h < H; h++) acc[m][h] = dot(acc[m][h], u[h], v);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) put(sums + (m * H + h) * 8, acc[m][h]);
  }

#else
  static constexpr int kEight = 2;  // a digit of 8 bits is unpacked to two of 4
  template <int B>
  static constexpr int unpacked() {
    return B == 1 ? 2 : B;
  }
  template <int B, int MM>
  static constexpr int at_once() {
    return MM <= 2 && B < 8 ? 2 : 1;
  }
  // So many fours of inputs fit 16 bits: 2 * 2 * 127 a pair for digits up to 2, 2 * 15 * 127 for those up to 15.
  template <int B>
  static constexpr int fours() {
    return B <= 2 ? 64 : 8;
  }

  // Written out, since the compiler would add in another order and run out of registers.
  static inline __m256i dot(__m256i sum, __m256i u, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(u, x);
    asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(pairs));
    return sum;
  }
  template <int MM, int H>
  static inline void clear(__m256i (&few)[MM][H]) {
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) few[m][h] = _mm256_setzero_si256();
  }
  // sums[m * row + 8 h …] += weight * the pairs of few[m][h]
  template <int MM, int H>
  static inline void widen(const __m256i (&few)[MM][H], int weight, int32_t* sums, int row) {
    const __m256i times = _mm256_set1_epi16(short(weight));
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) {
        int32_t* to = sums + m * row + h * 8;
        put(to, _mm256_add_epi32(get(reinterpret_cast<const uint8_t*>(to)), _mm256_madd_epi16(few[m][h], times)));
      }
  }

  template <int B, int MM, int NB>
  static __attribute__((noinline)) void packed(const uint8_t* w, size_t block, const int8_t* a, size_t next, int depth, int32_t* sums) {
    constexpr int per = 8 / B, Z = 16 / per, H = 2 * NB;  // a block is two halves of 8 outputs
    for (int i = 0; i < MM * H; i++) put(sums + i * 8, _mm256_setzero_si256());
    if constexpr (B == 8) {
      for (int h = 0; h < H; h++)
        for (int z = 0; z < depth * Z; z += 8) {
          __m256i low[MM][1], high[MM][1];
          clear(low), clear(high);
          const int8_t* x = a + size_t(z / Z) * next + z % Z * 4;
          const uint8_t* at = w + h / 2 * block + size_t(z) * 64 + h % 2 * 32;
#pragma GCC unroll 8
          for (int i = 0; i < 8; i++) {
            const __m256i v = get(at + i * 64), l = digit<4>(v, 0), u = digit<4>(v, 1);
#pragma GCC unroll 8
            for (int m = 0; m < MM; m++) {
              const __m256i its = four(x + m * kDepth + i * 4);
              low[m][0] = dot(low[m][0], l, its), high[m][0] = dot(high[m][0], u, its);
            }
          }
          widen(low, 1, sums + h * 8, H * 8), widen(high, 16, sums + h * 8, H * 8);
        }
    } else {
      constexpr int most = fours<B>() / per;
      for (int z = 0; z < depth * Z;) {
        __m256i few[MM][H];
        clear(few);
        for (const int end = depth * Z - z < most ? depth * Z : z + most; z < end; z++) {
          const int8_t* x = a + size_t(z / Z) * next + z % Z * per * 4;
          __m256i v[H];
#pragma GCC unroll 8
          for (int h = 0; h < H; h++) v[h] = get(w + h / 2 * block + size_t(z) * 64 + h % 2 * 32);
#pragma GCC unroll 8
          for (int j = 0; j < per; j++) {
            __m256i u[H];
#pragma GCC unroll 8
            for (int h = 0; h < H; h++) u[h] = digit<B>(v[h], j);
#pragma GCC unroll 8
            for (int m = 0; m < MM; m++) {
              const __m256i its = four(x + m * kDepth + j * 4);
#pragma GCC unroll 8
              for (int h = 0; h < H; h++) few[m][h] = dot(few[m][h], u[h], its);
            }
          }
        }
        widen(few, 1, sums, H * 8);
      }
    }
  }

  // One four of inputs: two halves of outputs, of 8 bits low and high digits of the half at `w`.
  template <int MM, int B>
  static inline void step(__m256i (&few)[MM][2], const uint8_t* w, const int8_t* x, bool first) {
    const __m256i u[2] = {get(w), get(w + (B == 8 ? 64 : 32))};
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++) {
      const __m256i its = four(x + m * kDepth);
#pragma GCC unroll 8
      for (int h = 0; h < 2; h++) few[m][h] = first ? _mm256_maddubs_epi16(u[h], its) : dot(few[m][h], u[h], its);
    }
  }
  template <int MM, int B>
  static inline void widen_tile(const __m256i (&few)[MM][2], int32_t* sums) {
    const __m256i one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++) {
      __m256i low = _mm256_madd_epi16(few[m][0], one), high = _mm256_madd_epi16(few[m][1], B == 8 ? sixteen : one);
      int32_t* to = sums + m * kLanes;
      if constexpr (B == 8) {
        put(to, _mm256_add_epi32(get(reinterpret_cast<const uint8_t*>(to)), _mm256_add_epi32(low, high)));
      } else {
        put(to, _mm256_add_epi32(get(reinterpret_cast<const uint8_t*>(to)), low));
        put(to + 8, _mm256_add_epi32(get(reinterpret_cast<const uint8_t*>(to + 8)), high));
      }
    }
  }

  // Digits of 8 bits lie as 64 low halves and 64 high ones: two passes, each for half of the outputs.
  template <int MM, int NB, int B>
  static __attribute__((noinline)) void tile(const uint8_t* w, size_t, const int8_t* a, size_t next, int from, int to, int32_t* sums) {
    static_assert(NB == 1, "one block at once");
    constexpr int width = B == 8 ? 128 : 64;
#pragma GCC unroll 8
    for (int i = 0; i < MM * 2; i++) put(sums + i * 8, _mm256_setzero_si256());
    for (int pass = 0; pass < (B == 8 ? 2 : 1); pass++, w += 32, sums += 8) {
      int s = from;
      if (B == 2 && from % 16 == 0)
        while (s + 16 <= to) {
          __m256i few[MM][2];
          clear(few);
          for (const int end = to < s + 64 ? to : s + 64; s + 16 <= end; s += 16) {
            const uint8_t* u = w + size_t(s) * width;
            const int8_t* x = a + size_t(s / 16) * next;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) step<MM, B>(few, u + i * width, x + i * 4, false);
          }
          widen_tile<MM, B>(few, sums);
        }
      if (s % 8 == 0)
        for (; s + 8 <= to; s += 8) {
          const uint8_t* u = w + size_t(s) * width;
          const int8_t* x = a + size_t(s / 16) * next + s % 16 * 4;
          __m256i few[MM][2];
#pragma GCC unroll 8
          for (int i = 0; i < 8; i++) step<MM, B>(few, u + i * width, x + i * 4, i == 0);
          widen_tile<MM, B>(few, sums);
        }
      while (s < to) {  // steps that begin or end within a tile
        __m256i few[MM][2];
        clear(few);
        for (const int end = to < (s / 8 + 1) * 8 ? to : (s / 8 + 1) * 8; s < end; s++)
          step<MM, B>(few, w + size_t(s) * width, a + size_t(s / 16) * next + s % 16 * 4, false);
        widen_tile<MM, B>(few, sums);
      }
    }
  }
#endif

  static double peak(long n) {
    __m256i sum[8], x = _mm256_set1_epi8(1);
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        asm volatile("" : "+x"(x));
        sum[i] = dot(sum[i], x, x);
      }
    }
    for (int i = 1; i < 8; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    asm volatile("" ::"x"(sum[0]));
    return double(n) * 8 * 32 * 2;
  }

  template <int B>
  static void unpack(const uint8_t* from, uint8_t* to) {
    constexpr int per = 8 / B;
    for (int z = 0; z < 16 / per; z++)
      for (int h = 0; h < 2; h++) {
        const __m256i v = get(from + z * 64 + h * 32);
        if constexpr (B == 8) {
          put(to + z * 128 + h * 32, digit<4>(v, 0)), put(to + z * 128 + h * 32 + 64, digit<4>(v, 1));
        } else {
#pragma GCC unroll 8
          for (int j = 0; j < per; j++) put(to + (z * per + j) * 64 + h * 32, digit<B>(v, j));
        }
      }
  }
};

}  // namespace GREENASR_ISA_NAMESPACE
}  // namespace greenasr
