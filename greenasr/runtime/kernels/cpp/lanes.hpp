// Sixteen numbers side by side: the compiler's own vectors where a register holds them, else as many registers as it
// takes.  (Vectors wider than a register work in every compiler, but go by way of memory.)
#include <stdint.h>
#include <string.h>

namespace greenasr {
namespace GREENASR_ISA_NAMESPACE {

typedef int8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));

#if defined(__AVX512F__)

typedef float f16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u16 __attribute__((vector_size(64), aligned(4), may_alias));
static inline f16 pick(i16 mask, f16 a, f16 b) { return mask ? a : b; }
static inline i16 pick(i16 mask, i16 a, i16 b) { return mask ? a : b; }
static inline f16 to_float(i16 x) { return __builtin_convertvector(x, f16); }
static inline void store_bytes(int8_t* p, i16 x) { *reinterpret_cast<b16*>(p) = __builtin_convertvector(x, b16); }
static inline f16 load(const float* p) { return *reinterpret_cast<const f16*>(p); }
static inline i16 load(const int32_t* p) { return *reinterpret_cast<const i16*>(p); }
static inline u16 load(const uint32_t* p) { return *reinterpret_cast<const u16*>(p); }
static inline void store(uint8_t* p, u16 x) { *reinterpret_cast<u16*>(p) = x; }
static inline void store(float* p, f16 x) { *reinterpret_cast<f16*>(p) = x; }

#else

#if defined(__AVX__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
template <class T>
struct Sixteen {
  typedef T Part __attribute__((vector_size(kRegister), aligned(4), may_alias));
  static constexpr int n = 64 / kRegister, each = 16 / n;
  Part part[n];
  T operator[](int i) const { return part[i / each][i % each]; }
};
template <class T>
struct Same {
  typedef T type;
};
typedef Sixteen<float> f16;
typedef Sixteen<int32_t> i16;
typedef Sixteen<uint32_t> u16;

#define GREENASR_LANES(R, op)                                                                       \
  template <class T>                                                                                \
  static inline R operator op(const Sixteen<T>& a, const Sixteen<T>& b) {                           \
    R r;                                                                                            \
    for (int i = 0; i < R::n; i++) r.part[i] = a.part[i] op b.part[i];                              \
    return r;                                                                                       \
  }                                                                                                 \
  template <class T>                                                                                \
  static inline R operator op(const Sixteen<T>& a, typename Same<T>::type b) {                      \
    R r;                                                                                            \
    for (int i = 0; i < R::n; i++) r.part[i] = a.part[i] op b;                                      \
    return r;                                                                                       \
  }                                                                                                 \
  template <class T>                                                                                \
  static inline R operator op(typename Same<T>::type a, const Sixteen<T>& b) {                      \
    R r;                                                                                            \
    for (int i = 0; i < R::n; i++) r.part[i] = a op b.part[i];                                      \
    return r;                                                                                       \
  }
GREENASR_LANES(Sixteen<T>, +)
GREENASR_LANES(Sixteen<T>, -)
GREENASR_LANES(Sixteen<T>, *)
GREENASR_LANES(Sixteen<T>, /)
GREENASR_LANES(Sixteen<T>, &)
GREENASR_LANES(Sixteen<T>, |)
GREENASR_LANES(Sixteen<T>, ^)
GREENASR_LANES(i16, <)
GREENASR_LANES(i16, >)
GREENASR_LANES(i16, !=)
#undef GREENASR_LANES
template <class T>
static inline Sixteen<T> operator<<(const Sixteen<T>& a, int b) {
  Sixteen<T> r;
  for (int i = 0; i < r.n; i++) r.part[i] = a.part[i] << b;
  return r;
}
template <class T>
static inline Sixteen<T> operator>>(const Sixteen<T>& a, int b) {
  Sixteen<T> r;
  for (int i = 0; i < r.n; i++) r.part[i] = a.part[i] >> b;
  return r;
}
static inline u16 operator>>(uint32_t a, const u16& b) {
  u16 r;
  for (int i = 0; i < r.n; i++) r.part[i] = a >> b.part[i];
  return r;
}
static inline f16 operator-(const f16& a) {
  f16 r;
  for (int i = 0; i < r.n; i++) r.part[i] = -a.part[i];
  return r;
}
#define GREENASR_CHANGES(op)                                             \
  template <class T, class U>                                            \
  static inline Sixteen<T>& operator op##=(Sixteen<T>& a, const U& b) {  \
    return a = a op b;                                                   \
  }
GREENASR_CHANGES(+)
GREENASR_CHANGES(-)
GREENASR_CHANGES(*)
GREENASR_CHANGES(&)
GREENASR_CHANGES(|)
GREENASR_CHANGES(^)
#undef GREENASR_CHANGES

template <class T>
static inline Sixteen<T> pick(const i16& mask, const Sixteen<T>& a, const Sixteen<T>& b) {
  Sixteen<T> r;
  for (int i = 0; i < r.n; i++) r.part[i] = mask.part[i] ? a.part[i] : b.part[i];
  return r;
}
static inline f16 to_float(const i16& x) {
  f16 r;
  for (int i = 0; i < r.n; i++) r.part[i] = __builtin_convertvector(x.part[i], f16::Part);
  return r;
}
static inline void store_bytes(int8_t* p, const i16& x) {
#if defined(__AVX2__)
  const __m256i pairs = _mm256_packs_epi32(__m256i(x.part[0]), __m256i(x.part[1]));  // the middle quarters change places
  const __m256i even = _mm256_permute4x64_epi64(pairs, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
#else
  typedef int8_t some __attribute__((vector_size(i16::each), aligned(1), may_alias));
  for (int i = 0; i < x.n; i++) *reinterpret_cast<some*>(p + i * i16::each) = __builtin_convertvector(x.part[i], some);
#endif
}

// Part by part: a struct that is copied whole goes by way of memory.
template <class R, class T>
static inline R load_parts(const T* p) {
  R r;
  for (int i = 0; i < r.n; i++) r.part[i] = *reinterpret_cast<const typename R::Part*>(p + i * R::each);
  return r;
}
static inline f16 load(const float* p) { return load_parts<f16>(p); }
static inline i16 load(const int32_t* p) { return load_parts<i16>(p); }
static inline u16 load(const uint32_t* p) { return load_parts<u16>(p); }
static inline void store(uint8_t* p, const u16& x) {
  for (int i = 0; i < x.n; i++) *reinterpret_cast<u16::Part*>(p + i * kRegister) = x.part[i];
}
static inline void store(float* p, const f16& x) {
  for (int i = 0; i < x.n; i++) *reinterpret_cast<f16::Part*>(p + i * f16::each) = x.part[i];
}

#endif

static inline f16 all(float x) {
  const f16 zero = {};
  return x - zero;  // nothing to compute, as x + 0 would be
}
static inline i16 alli(int32_t x) {
  const i16 zero = {};
  return zero + x;
}
static inline f16 load(const float* p, int n) {
  if (n >= kLanes) return load(p);
  alignas(64) float x[kLanes] = {};
  memcpy(x, p, size_t(n) * 4);
  return load(x);
}
static inline void store(float* p, f16 x, int n) {
  if (n >= kLanes) return store(p, x);
  alignas(64) float numbers[kLanes];
  store(numbers, x);
  memcpy(p, numbers, size_t(n) * 4);
}
// The larger of each, NaN where x or y is.
static inline f16 larger(f16 x, f16 y) { return pick(x > y, x, pick(x != x, x, y)); }

static inline i16 bits(f16 x) {
#if defined(__AVX512F__)
  return reinterpret_cast<i16>(x);
#else
  i16 v;
  for (int i = 0; i < v.n; i++) v.part[i] = reinterpret_cast<i16::Part>(x.part[i]);
  return v;
#endif
}
static inline f16 of_bits(i16 v) {
#if defined(__AVX512F__)
  return reinterpret_cast<f16>(v);
#else
  f16 x;
  for (int i = 0; i < x.n; i++) x.part[i] = reinterpret_cast<f16::Part>(v.part[i]);
  return x;
#endif
}

}  // namespace GREENASR_ISA_NAMESPACE
}  // namespace greenasr
