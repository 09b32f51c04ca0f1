// The integer sums of AVX-512 VNNI, shared by the AVX-512 and the AMX path.
namespace greenasr {
namespace GREENASR_ISA_NAMESPACE {

typedef int32_t word __attribute__((may_alias, aligned(1)));

struct Isa {
  static constexpr int kFrames = 12;  // of a convolution at once
  static constexpr int kWide = 8, kPanel = 3;
  static constexpr int kFew = 1 << 30;  // unpacking in registers costs nothing beside eight rows of products
  static constexpr int kEight = 1;
  template <int B>
  static constexpr int unpacked() {
    return 8;
  }
  // Blocks of outputs at once, so that about 16 sums are under way (a product takes 4 to 5 cycles).
  template <int B, int MM>
  static constexpr int at_once() {
    return MM == 1 ? (B == 1 ? 2 : B == 2 ? 4 : 8) : MM <= 4 ? 4 : 3;
  }
  static int off(const Part& p) { return p.off; }
  static constexpr int kAhead = 2048;  // bytes that one row's digits are fetched ahead

  // Bits 4 s … 4 s + 3 of every word to four bytes of 0 or 1, by a table of the sixteen.
#define GREENASR_SPREAD
  static inline __m512i spread(__m512i w, int s) {
    const __m512i table =
        _mm512_setr_epi32(0x00000000, 0x00000001, 0x00000100, 0x00000101, 0x00010000, 0x00010001, 0x00010100, 0x00010101,
                          0x01000000, 0x01000001, 0x01000100, 0x01000101, 0x01010000, 0x01010001, 0x01010100, 0x01010101);
    return _mm512_permutexvar_epi32(_mm512_srli_epi32(w, 4 * unsigned(s)), table);
  }

  static double peak(long n) {
    __m512i sum[16], x = _mm512_set1_epi8(1);
    for (int i = 0; i < 16; i++) sum[i] = _mm512_setzero_si512();
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], x, x);
      asm volatile("" : "+v"(x));
    }
    for (int i = 1; i < 16; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    asm volatile("" ::"v"(sum[0]));
    return double(n) * 16 * 64 * 2;
  }

  template <int B>
  static inline __m512i digit(__m512i v, int j) {
    if constexpr (B == 8) return v;
    return _mm512_and_si512(_mm512_srli_epi16(v, j * B), _mm512_set1_epi8((1 << B) - 1));
  }

  template <int B, int MM, int NB>
  static __attribute__((noinline)) void packed(const uint8_t* w, size_t block, const int8_t* a, size_t next, int depth, int32_t* sums) {
    constexpr int per = 8 / B, Z = 16 / per;
    constexpr size_t tile = size_t(64) * Z;
    if constexpr (MM == 1) {
      // One row: digits are masked and not shifted; position j has a sum of its own, 2^(B j) times too large.
      __m512i acc[per][NB];
#pragma GCC unroll 8
      for (int j = 0; j < per; j++)
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) acc[j][n] = _mm512_setzero_si512();
      for (int k = 0; k < depth; k++) {
        // Behind the end of these blocks lie the next ones, not the blocks beside.
        const uint8_t* ahead = w + k * tile + kAhead + (k * tile + kAhead >= block ? (NB - 1) * block : 0);
        for (int z = 0; z < Z; z++) {
          __m512i v[NB];
#pragma GCC unroll 8
          for (int n = 0; n < NB; n++) {
            v[n] = _mm512_loadu_si512(w + n * block + k * tile + z * 64);
            _mm_prefetch(reinterpret_cast<const char*>(ahead + n * block + z * 64), _MM_HINT_T0);
          }
#pragma GCC unroll 8
          for (int j = 0; j < per; j++) {
            __m512i x = _mm512_set1_epi32(*reinterpret_cast<const word*>(a + k * next + (z * per + j) * 4));
            __m512i mask = _mm512_set1_epi8(char(((1 << B) - 1) << (j * B)));  // of 8 bits, all
#pragma GCC unroll 8
            for (int n = 0; n < NB; n++) acc[j][n] = _mm512_dpbusd_epi32(acc[j][n], _mm512_and_si512(v[n], mask), x);
          }
        }
      }
#pragma GCC unroll 8
      for (int n = 0; n < NB; n++) {
        __m512i total = acc[0][n];
#pragma GCC unroll 8
        for (int j = 1; j < per; j++) total = _mm512_add_epi32(total, _mm512_srai_epi32(acc[j][n], B * j));
        _mm512_storeu_si512(sums + n * kLanes, total);
      }
    } else {
      __m512i acc[MM][NB];
#pragma GCC unroll 8
      for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) acc[m][n] = _mm512_setzero_si512();
      for (int k = 0; k < depth; k++)
        for (int z = 0; z < Z; z++) {
          __m512i v[NB];
#pragma GCC unroll 8
          for (int n = 0; n < NB; n++) v[n] = _mm512_loadu_si512(w + n * block + k * tile + z * 64);
#pragma GCC unroll 8
          for (int j = 0; j < per; j++) {
            __m512i u[NB];
#pragma GCC unroll 8
            for (int n = 0; n < NB; n++) u[n] = digit<B>(v[n], j);
#pragma GCC unroll 8
            for (int m = 0; m < MM; m++) {
              __m512i x =
                  _mm512_set1_epi32(*reinterpret_cast<const word*>(a + k * next + m * kDepth + (z * per + j) * 4));
#pragma GCC unroll 8
              for (int n = 0; n < NB; n++) acc[m][n] = _mm512_dpbusd_epi32(acc[m][n], u[n], x);
            }
          }
        }
#pragma GCC unroll 8
      for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) _mm512_storeu_si512(sums + (m * NB + n) * kLanes, acc[m][n]);
    }
  }

  template <int MM, int NB, int B>
  static __attribute__((noinline)) void tile(const uint8_t* w, size_t block, const int8_t* a, size_t next, int from, int to, int32_t* sums) {
    __m512i acc[MM][NB];
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int n = 0; n < NB; n++) acc[m][n] = _mm512_setzero_si512();
    for (int s = from; s < to; s++) {
      const int8_t* x = a + size_t(s / 16) * next + s % 16 * 4;
      __m512i u[NB];
#pragma GCC unroll 8
      for (int n = 0; n < NB; n++) u[n] = _mm512_loadu_si512(w + n * block + size_t(s) * 64);
#pragma GCC unroll 8
      for (int m = 0; m < MM; m++) {
        __m512i v = _mm512_set1_epi32(*reinterpret_cast<const word*>(x + m * kDepth));
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) acc[m][n] = _mm512_dpbusd_epi32(acc[m][n], u[n], v);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MM; m++)
#pragma GCC unroll 8
      for (int n = 0; n < NB; n++) _mm512_storeu_si512(sums + (m * NB + n) * kLanes, acc[m][n]);
  }

  template <int B>
  static void unpack(const uint8_t* from, uint8_t* to) {
    constexpr int per = 8 / B;
    for (int z = 0; z < 16 / per; z++) {
      __m512i v = _mm512_loadu_si512(from + z * 64);
#pragma GCC unroll 8
      for (int j = 0; j < per; j++) _mm512_storeu_si512(to + (z * per + j) * 64, digit<B>(v, j));
    }
  }
};

}  // namespace GREENASR_ISA_NAMESPACE
}  // namespace greenasr
