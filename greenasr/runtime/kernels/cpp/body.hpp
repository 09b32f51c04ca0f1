// The part of the kernels that is written once and compiled for every instruction set.
//
// A file for one instruction set defines, in its own namespace, `Isa` with
//   kWide, kFew               most rows that `packed` and `tile` take at once; rows up to which digits stay packed
//   packed<B, MM, NB>(…)      integer sums straight from packed digits
//   tile<MM, NB, B>(…)        integer sums from digits of B bits unpacked to bytes, B one of unpacked<1, 2, 4, 8>()
//   unpack<B>(…)              one tile of digits to bytes; those of 8 bits to kEight each, where that is not one
// and includes this.  Everything here is float32 in vectors of 16 lanes of the compiler's own kind, so that each
// operation is the same on every machine (-ffp-contract=off).  Nothing from the standard library's templates is
// used: a copy compiled for a newer machine must never be linked into another file's path.
#include <string.h>

#include "kernels.hpp"
#include "lanes.hpp"

namespace greenasr {
namespace GREENASR_ISA_NAMESPACE {

typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i4 __attribute__((vector_size(16), aligned(4), may_alias));
static inline f4 quarter(const f16& x, int q) { return reinterpret_cast<const f4*>(&x)[q]; }
static inline i4 quarter(const i16& x, int q) { return reinterpret_cast<const i4*>(&x)[q]; }
static inline i4 larger(i4 x, i4 y) { return x > y ? x : y; }

static inline int32_t largest16(i16 x) {
  const i4 b = larger(larger(quarter(x, 0), quarter(x, 1)), larger(quarter(x, 2), quarter(x, 3)));
  const int32_t low = b[0] > b[1] ? b[0] : b[1], high = b[2] > b[3] ? b[2] : b[3];
  return low > high ? low : high;
}
static inline int32_t sum16(i16 x) {
  const i4 b = (quarter(x, 0) + quarter(x, 2)) + (quarter(x, 1) + quarter(x, 3));
  return (b[0] + b[2]) + (b[1] + b[3]);
}

// Largest |x| as bits: integers order as magnitudes do, and NaN and infinity come out above all numbers.
static inline int32_t magnitude(const float* x, int n, int32_t most) {
  i16 best = alli(0), bests[4] = {best, best, best, best};  // so that one comparison need not wait for the last
  int k = 0;
  for (; k + 4 * kLanes <= n; k += 4 * kLanes)
    for (int i = 0; i < 4; i++) {
      const i16 v = bits(load(x + k + i * kLanes)) & 0x7fffffff;
      bests[i] = pick(v > bests[i], v, bests[i]);
    }
  for (const i16& each : bests) best = pick(each > best, each, best);
  for (; k + kLanes <= n; k += kLanes) {
    const i16 v = bits(load(x + k)) & 0x7fffffff;
    best = pick(v > best, v, best);
  }
  if (k < n) {
    const i16 v = bits(load(x + k, n - k)) & 0x7fffffff;
    best = pick(v > best, v, best);
  }
  const int32_t of_all = largest16(best);
  return of_all > most ? of_all : most;
}

template <bool Fixed>
static inline i16 rounded(f16 x, float inverse, i16& strange) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest even integer
  const int32_t its_bits = 0x4b400000;
  i16 v = bits(x * inverse + magic);
  if (Fixed) {  // integers order as these numbers do, negative ones below all others
    const i16 most = alli(its_bits + 127), least = alli(its_bits - 127);
    v = pick(v > most, most, v);
    v = pick(v > least, v, least);
    strange |= bits(x - x);
  }
  return v - its_bits;
}

// n values to int8 at q[0], q[1], …, broken into tiles `next` bytes apart; `at` counts inputs.  Their sum.  With a
// step of their own, `Fixed`, larger ones become 127, and `odd` is no longer 0 behind one with NaN or infinity.
template <bool Fixed>
static inline int32_t round_to(const float* x, int n, float inverse, int8_t* q, size_t next, int at, int32_t& odd) {
  i16 sum = alli(0), strange = alli(0);
  for (int k = 0; k < n;) {
    const int in = (at + k) % kDepth, room = kDepth - in, take = n - k < room ? n - k : room;
    int8_t* to = q + size_t((at + k) / kDepth) * next + in;
    int i = 0;
    for (; i + kLanes <= take; i += kLanes) {
      const i16 v = rounded<Fixed>(load(x + k + i), inverse, strange);
      sum += v;
      store_bytes(to + i, v);
    }
    if (i < take) {
      const i16 v = rounded<Fixed>(load(x + k + i, take - i), inverse, strange);  // zeros behind
      int8_t bytes[kLanes];
      sum += v;
      store_bytes(bytes, v);
      memcpy(to + i, bytes, size_t(take - i));
    }
    k += take;
  }
  if (Fixed) {
    const i4 any = (quarter(strange, 0) | quarter(strange, 1)) | (quarter(strange, 2) | quarter(strange, 3));
    odd |= (any[0] | any[1]) | (any[2] | any[3]);
  }
  return sum16(sum);
}

// One row of activations: a = round(127 x / max|x|), scale = max|x| / 127; with a step of the source's a = round(x / step),
// at most 127, scale = step.  A row with NaN or infinity gets scale NaN.
static void quantize(const Source& s, int m, int8_t* q, size_t next, int depth, float* scale, int32_t* sums) {
  const bool fixed = s.step > 0.0f;
  int32_t most = 0, odd = 0;
  for (int tap = 0; tap < s.taps && !fixed; tap++) {
    int32_t row = s.index ? s.index[ptrdiff_t(m) * s.taps + tap] : m;
    if (row >= 0) most = magnitude(s.x + row * s.stride, s.width, most);
  }
  const int32_t nan = 0x7fc00000;
  float peak, inverse = 0.0f;
  memcpy(&peak, &most, 4);
  if (fixed) {
    *scale = s.step;
    inverse = 1.0f / s.step;
  } else if (most >= 0x7f800000) {
    memcpy(scale, &nan, 4);
  } else if (peak < 1e-30f) {
    *scale = 0.0f;
  } else {
    *scale = peak / 127.0f;
    inverse = 127.0f / peak;
  }
  const bool grouped = s.group > 0 && (s.group != s.padded || s.taps * s.width > s.group);
  const int total = s.taps * s.width, groups = grouped ? (total + s.group - 1) / s.group : 1;
  int used = 0;
  for (int g = 0; g < groups; g++) sums[g] = 0;
  int in = 0;  // inputs done
  for (int tap = 0; tap < s.taps; tap++) {
    int32_t row = s.index ? s.index[ptrdiff_t(m) * s.taps + tap] : m;
    int done = 0;
    while (done < s.width) {
      int g = grouped ? in / s.group : 0, begin = grouped ? g * s.padded + in % s.group : in;
      int left = grouped ? s.group - in % s.group : s.width;
      int take = s.width - done < left ? s.width - done : left;
      if (row < 0 || inverse == 0.0f) {
        for (int k = begin; k < begin + take; k++) q[size_t(k / kDepth) * next + k % kDepth] = 0;
      } else {
        const float* from = s.x + row * s.stride + done;
        sums[g] += fixed ? round_to<true>(from, take, inverse, q, next, begin, odd)
                         : round_to<false>(from, take, inverse, q, next, begin, odd);
      }
      done += take;
      in += take;
      used = begin + take;
      if (grouped && in % s.group == 0)
        for (; used < (g + 1) * s.padded; used++) q[size_t(used / kDepth) * next + used % kDepth] = 0;
    }
  }
  for (; used < depth * kDepth; used++) q[size_t(used / kDepth) * next + used % kDepth] = 0;
  if (odd) memcpy(scale, &nan, 4);
}

static inline f16 relu(f16 y) { return pick(y < 0.0f, all(0.0f), y); }

// e^x to about 1e-7 relatively, for x up to 88; below -87 as at -87.  NaN stays NaN.
static inline f16 exp16(f16 x) {
  x = pick(x > 88.0f, all(88.0f), x);
  x = pick(x < -87.0f, all(-87.0f), x);
  f16 shifted = x * 1.44269504f + 12582912.0f;
  const i16 n = bits(shifted) - 0x4b400000;
  f16 whole = shifted - 12582912.0f;
  f16 r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  f16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * of_bits((n + 127) << 23);
}
static inline f16 sigmoid16(f16 x) { return 1.0f / (1.0f + exp16(-x)); }
static inline f16 tanh16(f16 x) { return 2.0f / (1.0f + exp16(-2.0f * x)) - 1.0f; }

// x Φ(x), the error function by Abramowitz and Stegun 1964, 7.1.26.
static inline f16 gelu(f16 x) {
  f16 z = x * 0.70710678f, away = pick(z < 0.0f, -z, z);
  f16 k = 1.0f / (1.0f + 0.3275911f * away);
  f16 series = ((((1.061405429f * k - 1.453152027f) * k + 1.421413741f) * k - 0.284496736f) * k + 0.254829592f) * k;
  f16 tail = series * exp16(-(away * away)) * 0.5f;  // 1 - Φ(|x|)
  return x * pick(z < 0.0f, tail, 1.0f - tail);
}

static inline f4 larger(f4 x, f4 y) { return x > y ? x : (x != x ? x : y); }

static inline float largest16(f16 x) {
  const f4 f = larger(larger(quarter(x, 0), quarter(x, 1)), larger(quarter(x, 2), quarter(x, 3)));
  float best = f[0];
  for (int i = 1; i < 4; i++) best = f[i] > best || f[i] != f[i] ? f[i] : best;
  return best;
}
static inline float sum16(f16 x) {
  const f4 b = (quarter(x, 0) + quarter(x, 2)) + (quarter(x, 1) + quarter(x, 3));
  return (b[0] + b[2]) + (b[1] + b[3]);
}
static inline f16 but_first(f16 x, int n, float rest) {
  alignas(64) static const int32_t lane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return pick(load(lane) < n, x, all(rest));
}

static void log_sum(const float* y, const float* mass, int n, float* largest, float* sum) {
  f16 best = all(y[0]);
  for (int i = 0; i < n; i += kLanes) {
    f16 s = load(y + i, n - i);
    if (n - i < kLanes) s = but_first(s, n - i, y[0]);
    best = larger(s, best);
  }
  const float top = largest16(best);
  f16 total = all(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    f16 e = exp16(load(y + i, n - i) - top);
    if (mass) e *= load(mass + i, n - i);
    total += n - i < kLanes ? but_first(e, n - i, 0.0f) : e;
  }
  *largest = top;
  *sum = sum16(total);
}

static __attribute__((noinline)) void gelu_rows(f16* y, int rows) {
  for (int i = 0; i < rows; i++) y[i] = gelu(y[i]);
}

// The epilogue of 16 outputs from column `at` on, of which `left` are there, for rows m … m + MM; what it asks for is
// looked up once for all rows, which stay in registers.
template <int MM>
static inline __attribute__((always_inline)) void finish_rows(f16 (&y)[MM], int m, int at, int left, const Epilogue& e) {
#define GREENASR_ROWS _Pragma("GCC unroll 16") for (int i = 0; i < MM; i++)
  if (e.bias) {
    const f16 bias = load(e.bias + at, left);
    GREENASR_ROWS y[i] += bias;
  }
  if (e.relu == Relu::first) {
    GREENASR_ROWS y[i] = relu(y[i]);
  } else if (e.relu == Relu::gelu) {
    f16 kept[MM];
    GREENASR_ROWS kept[i] = y[i];
    gelu_rows(kept, MM);
    GREENASR_ROWS y[i] = kept[i];
  }
  if (e.scale) {
    const f16 scale = load(e.scale + at, left);
    GREENASR_ROWS y[i] *= scale;
  }
  if (e.shift) {
    const f16 shift = load(e.shift + at, left);
    GREENASR_ROWS y[i] += shift;
  }
  if (e.residual) {
    const float* x = e.residual + m * e.residual_stride + at;
    GREENASR_ROWS y[i] += load(x + i * e.residual_stride, left) * e.weight;
  }
  if (e.relu == Relu::last) {
    GREENASR_ROWS y[i] = relu(y[i]);
  }
  float* out = e.out + m * e.stride + at;
  if (left >= kLanes) {
    GREENASR_ROWS store(out + i * e.stride, y[i]);
  } else {
    GREENASR_ROWS store(out + i * e.stride, y[i], left);
  }
#undef GREENASR_ROWS
}

static inline void finish(f16 y, int m, int at, int left, const Epilogue& e) {
  f16 row[1] = {y};
  finish_rows<1>(row, m, at, left, e);
}

static void lstm_cell(const float* gates, float* c, float* h, int dim) {
  for (int d = 0; d < dim; d += kLanes) {
    int n = dim - d;
    f16 i = sigmoid16(load(gates + d, n)), f = sigmoid16(load(gates + dim + d, n));
    f16 g = tanh16(load(gates + 2 * dim + d, n)), o = sigmoid16(load(gates + 3 * dim + d, n));
    f16 cell = f * load(c + d, n) + i * g;
    store(c + d, cell, n);
    store(h + d, o * tanh16(cell), n);
  }
}

static void layer_norm(const float* x, int n, const float* gain, const float* bias, float eps, float* out) {
  f16 sum = all(0.0f);
  for (int i = 0; i < n; i += kLanes) sum += load(x + i, n - i);
  const float mean = sum16(sum) / float(n);
  sum = all(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    f16 away = load(x + i, n - i) - mean;
    if (n - i < kLanes) away = but_first(away, n - i, 0.0f);
    sum += away * away;
  }
  const float scale = 1.0f / __builtin_sqrtf(sum16(sum) / float(n) + eps);
  for (int i = 0; i < n; i += kLanes)
    store(out + i, (load(x + i, n - i) - mean) * scale * load(gain + i, n - i) + load(bias + i, n - i), n - i);
}

// Scores of MQ queries with NK blocks of 16 keys from p on; what lies behind the last key is anything.
template <int MQ, int NK>
static inline void score_keys(const float* q, ptrdiff_t q_stride, const float* k, int room, int p, int dim, float scale,
                              float* scores, int row) {
  constexpr int kSums = MQ * NK;
  f16 sum[kSums];
  for (int i = 0; i < kSums; i++) sum[i] = all(0.0f);
  for (int d = 0; d < dim; d++) {
    f16 x[NK];
    for (int n = 0; n < NK; n++) x[n] = load(k + ptrdiff_t(d) * room + p + n * kLanes, room - p - n * kLanes);
    for (int i = 0; i < MQ; i++)
      for (int n = 0; n < NK; n++) sum[i * NK + n] += x[n] * q[i * q_stride + d];
  }
  for (int i = 0; i < MQ; i++)
    for (int n = 0; n < NK; n++) store(scores + i * row + p + n * kLanes, sum[i * NK + n] * scale);
}

// Sums over values of MQ queries, of which the first sees `seen` and each next one more, for ND blocks of 16 from d on.
template <int MQ, int ND>
static inline void sum_values(const float* scores, int row, const float* inverse, const float* v, int room, int seen, int dim,
                              int d, float* out, ptrdiff_t out_stride) {
  constexpr int kSums = MQ * ND;
  f16 sum[kSums];
  for (int i = 0; i < kSums; i++) sum[i] = all(0.0f);
  // Rows whose vectors end within the values; of the others the last vector is read in part.
  const int left = dim - d - (ND - 1) * kLanes, over = left < kLanes ? kLanes - left : 0;
  const int whole = room - (over + dim - 1) / dim;
  for (int p = 0; p < seen + MQ - 1; p++) {
    f16 x[ND];
    for (int n = 0; n < ND; n++) x[n] = load(v + ptrdiff_t(p) * dim + d + n * kLanes, p < whole ? kLanes : left + (ND - 1 - n) * kLanes);
    for (int i = p < seen ? 0 : p - seen + 1; i < MQ; i++)
      for (int n = 0; n < ND; n++) sum[i * ND + n] += x[n] * scores[i * row + p];
  }
  for (int i = 0; i < MQ; i++)
    for (int n = 0; n < ND; n++)
      store(out + i * out_stride + d + n * kLanes, sum[i * ND + n] * inverse[i], dim - d - n * kLanes);
}

// MQ queries, of which the first sees `seen` keys.
template <int MQ>
static void attend(const float* q, ptrdiff_t q_stride, const float* k, const float* v, int seen, int room, int dim,
                   float scale, float* scores, int row, float* out, ptrdiff_t out_stride) {
  constexpr int wide = 4 / MQ;  // as many sums at once, whatever the queries
  const int most = seen + MQ - 1;
  int p = 0;
  for (; p + wide * kLanes <= most; p += wide * kLanes)
    score_keys<MQ, wide>(q, q_stride, k, room, p, dim, scale, scores, row);
  for (; p < most; p += kLanes) score_keys<MQ, 1>(q, q_stride, k, room, p, dim, scale, scores, row);
  float inverse[MQ];
  for (int i = 0; i < MQ; i++) {
    float* s = scores + i * row;
    const int n = seen + i;
    f16 best = all(s[0]), mass = all(0.0f);
    for (p = 0; p < n; p += kLanes) {
      f16 x = load(s + p);
      if (n - p < kLanes) x = but_first(x, n - p, s[0]);
      best = larger(x, best);
    }
    const float top = largest16(best);
    for (p = 0; p < n; p += kLanes) {
      f16 x = exp16(load(s + p) - top);
      if (n - p < kLanes) x = but_first(x, n - p, 0.0f);
      mass += x;
      store(s + p, x);
    }
    inverse[i] = 1.0f / sum16(mass);
  }
  int d = 0;
  for (; d + wide * kLanes <= dim; d += wide * kLanes)
    sum_values<MQ, wide>(scores, row, inverse, v, room, seen, dim, d, out, out_stride);
  for (; d < dim; d += kLanes) sum_values<MQ, 1>(scores, row, inverse, v, room, seen, dim, d, out, out_stride);
}

static void attention(const float* q, ptrdiff_t q_stride, int queries, const float* k, const float* v, int keys, int room,
                      int dim, float scale, float* scores, float* out, ptrdiff_t out_stride) {
  const int row = (keys + kLanes - 1) / kLanes * kLanes;
  int t = 0;
  for (; t + kQueries <= queries; t += kQueries)
    attend<kQueries>(q + t * q_stride, q_stride, k, v, keys - queries + 1 + t, room, dim, scale, scores, row,
                     out + t * out_stride, out_stride);
  for (; t < queries; t++)
    attend<1>(q + t * q_stride, q_stride, k, v, keys - queries + 1 + t, room, dim, scale, scores, row,
              out + t * out_stride, out_stride);
}

static uint32_t read(const uint8_t* p, size_t bytes) {
  i16 sums[8];
  for (i16& s : sums) s = alli(0);
  for (size_t i = 0; i + 512 <= bytes; i += 512) {
    for (int u = 0; u < 8; u++) sums[u] ^= load(reinterpret_cast<const int32_t*>(p + i + 64 * u));
  }
  for (int u = 1; u < 8; u++) sums[0] ^= sums[u];
  uint32_t all_bits = 0;
  for (int i = 0; i < kLanes; i++) all_bits ^= uint32_t(sums[0][i]);
  return all_bits;
}

// Sums of MT rows of a convolution from inputs and taps that lie in rows of 16; x is where the first row begins.
template <int MT>
static inline void filter_rows(const Filter& f, const float* x, const float* taps, f16* sum) {
  for (int i = 0; i < MT; i++) sum[i] = all(0.0f);
  int k = 0;
  if constexpr (MT >= 8)  // as many registers hold the inputs of four taps
    if (f.stride == 1 && f.dilation == 1)
      for (; k + 4 <= f.n; k += 4) {
        f16 v[MT + 3];
#pragma GCC unroll 16
        for (int i = 0; i < MT + 3; i++) v[i] = load(x + (k + i) * kLanes);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
          const f16 w = load(taps + (k + j) * kLanes);
#pragma GCC unroll 16
          for (int i = 0; i < MT; i++) sum[i] += v[i + j] * w;
        }
      }
  for (; k < f.n; k++) {
    const f16 w = load(taps + k * kLanes);
    const float* at = x + ptrdiff_t(k) * f.dilation * kLanes;
#pragma GCC unroll 16
    for (int i = 0; i < MT; i++) sum[i] += load(at + ptrdiff_t(i) * f.stride * kLanes) * w;
  }
}

// 16 channels of the inputs are laid end to end first: rows a power of two apart would fight for the same lines.
static void depthwise(const Filter& f, const float* x, ptrdiff_t x_stride, int frames, int from, int to, int c,
                      const Epilogue& e, float* scratch) {
  constexpr int wide = Isa::kFrames;
  const int n = f.channels - c, first = from * f.stride - f.pad, rows = f.reach(to - from);
  float *taps = scratch, *in = scratch + ptrdiff_t(f.n) * kLanes;
  for (int k = 0; k < f.n; k++) store(taps + k * kLanes, load(f.taps + ptrdiff_t(k) * f.channels + c, n));
  for (int r = 0; r < rows; r++) {
    const bool outside = first + r < 0 || first + r >= frames;
    store(in + ptrdiff_t(r) * kLanes, outside ? all(0.0f) : load(x + (first + r) * x_stride + c, n));
  }
  f16 sum[wide];
  for (int t = from; t < to;) {
    const float* at = in + ptrdiff_t(t - from) * f.stride * kLanes;
    const int take = to - t >= wide ? wide : 1;
    if (take == wide) filter_rows<wide>(f, at, taps, sum), finish_rows<wide>(sum, t, c, n, e);
    else filter_rows<1>(f, at, taps, sum), finish(sum[0], t, c, n, e);
    t += take;
  }
}

static inline u16 hashed(u16 x, const uint32_t* key) {
  x ^= key[0];
  x = ((x ^ x >> 16) * 0x7feb352du) ^ key[1];
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}
// Bits 4 s … 4 s + 3 of every word to four bytes of 0 or 1.
static inline u16 spread(u16 word, int s) {
#if defined(GREENASR_SPREAD)
#if defined(__AVX512F__)
  return reinterpret_cast<u16>(Isa::spread(reinterpret_cast<__m512i>(word), s));
#else
  u16 r;
  for (int i = 0; i < r.n; i++) r.part[i] = reinterpret_cast<u16::Part>(Isa::spread(reinterpret_cast<__m256i>(word.part[i]), s));
  return r;
#endif
#else
  return ((word >> (4 * s) & 0xfu) * 0x00204081u) & 0x01010101u;
#endif
}

static void generate(const Generated& g, int block, int cols, int depth, uint8_t* bytes) {
  alignas(64) uint32_t numbers[kLanes];
  for (int n = 0; n < kLanes; n++) numbers[n] = uint32_t(block * kLanes + n) << 12;
  const u16 row = load(numbers);
  for (int j = 0; j < 2 * depth; j++) {
    u16 counter = row + uint32_t(j), negative = hashed(counter, g.keys[0]), mask;
    if (g.structured) {
      mask = row ^ row;
      for (int group = 0; group < 8; group++) {
        u16 u = hashed(counter, g.keys[1 + group / 2]) >> (16 * (group % 2)) & 0xffffu;
        mask |= ((0xca6953u >> (u * 6 >> 16) * 4) & 0xfu) << (4 * group);
      }
    } else if (g.keep == 256) {
      mask = (row ^ row) - 1u;
    } else {
      mask = row ^ row;
      for (int i = __builtin_ctz(unsigned(g.keep)); i < 8; i++) {
        u16 plane = hashed(counter, g.keys[1 + i]);
        mask = g.keep >> i & 1 ? mask | plane : mask & plane;
      }
    }
    if (32 * j + 32 > cols) mask &= 32 * j >= cols ? 0u : (1u << (cols - 32 * j)) - 1;
    negative &= mask;
    if (g.keep == 256 && !g.structured && 32 * j + 32 <= cols) {
      for (int s = 0; s < 8; s++, bytes += 64) {
        u16 digits = 0x02020202u - (spread(negative, s) << 1);
        store(bytes, digits);
      }
      continue;
    }
    for (int s = 0; s < 8; s++, bytes += 64) {
      u16 digits = 0x01010101u + spread(mask, s) - (spread(negative, s) << 1);
      store(bytes, digits);
    }
  }
}

// (mul * sums - off * sum of activations) as float, times the step.
static inline f16 stepped(const int32_t* sums, const Part& p, int block, int group, int32_t total) {
  const i16 v = (load(sums) << (p.mul - 1)) - Isa::off(p) * total;  // mul is 1 or 2
  return to_float(v) * load(p.steps + (size_t(block) * p.groups + group) * kLanes);
}

// Rows m … m + MM of NB blocks from their sums [MM][NB][16], where there is one step an output.
template <int MM, int NB>
static inline void write_out(const int32_t* sums, const Part& p, const Rows& a, int block, int m, const Epilogue& given) {
  const Epilogue e = given;  // a copy, which stores cannot change
  const int32_t off = Isa::off(p), shift = p.mul - 1;
  const float *steps = p.steps + size_t(block) * kLanes, *scale = a.scale + m;
  const int32_t* total = a.sums + m;
  const int first = block * kLanes, begin = p.first + first, left = p.rows - first;
  for (int n = 0; n < NB; n++) {
    const f16 step = load(steps + n * kLanes);
    f16 y[MM];
#pragma GCC unroll 8
    for (int i = 0; i < MM; i++) {
      const i16 v = (load(sums + (i * NB + n) * kLanes) << shift) - off * total[i];
      y[i] = to_float(v) * step * scale[i];
    }
    finish_rows<MM>(y, m, begin + n * kLanes, left - n * kLanes, e);
  }
}

template <int B, int MM, int NB>
static void small(const Part& p, const Rows& a, int block, int m, const Epilogue& e) {
  alignas(64) int32_t sums[MM * NB * kLanes];
  Isa::template packed<B, MM, NB>(p.digits + size_t(block) * p.depth * p.tile(), size_t(p.depth) * p.tile(), a.at(m),
                                  a.next(), p.depth, sums);
  write_out<MM, NB>(sums, p, a, block, m, e);
}

template <int B, int MM>
static void small_rows(const Part& p, const Rows& a, int block, int blocks, int m, const Epilogue& e) {
  constexpr int NB = Isa::template at_once<B, MM>();
  int n = 0;
  for (; n + NB <= blocks; n += NB) small<B, MM, NB>(p, a, block + n, m, e);
  if constexpr (NB > 2)
    for (; n + 2 <= blocks; n += 2) small<B, MM, 2>(p, a, block + n, m, e);
  if constexpr (NB > 1)
    for (; n < blocks; n++) small<B, MM, 1>(p, a, block + n, m, e);
}

template <int MM, int NB, int B>
static void large(const Part& p, const Rows& a, int block, int m, const Epilogue& e, const uint8_t* bytes) {
  alignas(64) int32_t sums[MM * NB * kLanes];
  if (p.groups == 1) {
    Isa::template tile<MM, NB, B>(bytes, size_t(p.depth) * kLanes * kDepth, a.at(m), a.next(), 0,
                                      (p.group + 3) / 4, sums);
    return write_out<MM, NB>(sums, p, a, block, m, e);
  }
  f16 total[MM * NB];
  const int steps = p.group / 4;
  for (int g = 0; g < p.groups; g++) {
    Isa::template tile<MM, NB, B>(bytes, size_t(p.depth) * kLanes * kDepth, a.at(m), a.next(), g * steps,
                                      (g + 1) * steps, sums);
    for (int i = 0; i < MM; i++)
      for (int n = 0; n < NB; n++) {
        f16 y = stepped(sums + (i * NB + n) * kLanes, p, block + n, g, a.sums[(m + i) * a.groups + g]);
        total[i * NB + n] = g ? total[i * NB + n] + y : y;
      }
  }
  for (int n = 0; n < NB; n++) {
    const int first = (block + n) * kLanes;
    for (int i = 0; i < MM; i++)
      finish(total[i * NB + n] * a.scale[m + i], m + i, p.first + first, p.rows - first, e);
  }
}

// Bytes of a block of outputs whose digits are unpacked.
static inline size_t unpacked_block(const Part& p) {
  return size_t(p.depth) * kLanes * kDepth * (p.bits == 8 ? Isa::kEight : 1);
}

template <int MM, int B>
static void large_blocks(const Part& p, const Rows& a, int block, int blocks, int m, const Epilogue& e, const uint8_t* bytes) {
  constexpr int NB = Isa::kPanel;
  const size_t each = unpacked_block(p);
  int n = 0;
  for (; n + NB <= blocks; n += NB) large<MM, NB, B>(p, a, block + n, m, e, bytes + n * each);
  if constexpr (NB > 2)
    if (blocks - n == 2) return large<MM, 2, B>(p, a, block + n, m, e, bytes + n * each);
  if constexpr (NB > 1)
    if (n < blocks) large<MM, 1, B>(p, a, block + n, m, e, bytes + n * each);
}

template <int B>
static void large_rows(const Part& p, const Rows& a, int block, int blocks, int from, int to, const Epilogue& e,
                       const uint8_t* bytes) {
  constexpr int wide = Isa::kWide;
  int m = from;
  while (m < to) {
    // A tile's rows lie in one block of activations.
    int room = a.rows - m % a.rows, left = to - m;
    int take = left < room ? left : room;
    take = take < wide ? take : wide;
    switch (take) {
#define GREENASR_CASE(x) \
  case x:                \
    if constexpr (x <= wide) large_blocks<x, B>(p, a, block, blocks, m, e, bytes); \
    break;
      GREENASR_CASE(1) GREENASR_CASE(2) GREENASR_CASE(3) GREENASR_CASE(4)
      GREENASR_CASE(5) GREENASR_CASE(6) GREENASR_CASE(7) GREENASR_CASE(8)
#undef GREENASR_CASE
    }
    m += take;
  }
}

template <int B>
static void small_product(const Part& p, const Rows& a, int block, int blocks, int from, int to, const Epilogue& e) {
  constexpr int wide = Isa::kWide;
  for (int m = from; m < to;) {
    int room = a.rows - m % a.rows, left = to - m;
    int take = left < room ? left : room;
    take = take < wide ? take : wide;
    switch (take) {
#define GREENASR_CASE(x) \
  case x:                \
    if constexpr (x <= wide) small_rows<B, x>(p, a, block, blocks, m, e); \
    break;
      GREENASR_CASE(1) GREENASR_CASE(2) GREENASR_CASE(3) GREENASR_CASE(4)
      GREENASR_CASE(5) GREENASR_CASE(6) GREENASR_CASE(7) GREENASR_CASE(8)
#undef GREENASR_CASE
    }
    m += take;
  }
}

static void unpack_panel(const Part& p, int block, int blocks, uint8_t* bytes) {
  if (p.generated) {
    for (int n = 0; n < blocks; n++, bytes += size_t(p.depth) * kLanes * kDepth)
      generate(*p.generated, block + n, p.cols, p.depth, bytes);
    return;
  }
  const uint8_t* from = p.digits + size_t(block) * p.depth * p.tile();
  for (int t = 0; t < blocks * p.depth; t++, from += p.tile(), bytes += kLanes * kDepth) switch (p.bits) {
      case 1: Isa::template unpack<1>(from, bytes); break;
      case 2: Isa::template unpack<2>(from, bytes); break;
      case 4: Isa::template unpack<4>(from, bytes); break;
      default:
        if constexpr (Isa::kEight == 1) memcpy(bytes, from, kLanes * kDepth);
        else Isa::template unpack<8>(from, bytes), bytes += kLanes * kDepth * (Isa::kEight - 1);
    }
}

static void product(const Part& p, const Rows& a, int block, int blocks, int from, int to, const Epilogue& e,
                    uint8_t* scratch) {
  if (p.groups == 1 && !p.generated && to - from <= Isa::kFew) {
    switch (p.bits) {
      case 1: return small_product<1>(p, a, block, blocks, from, to, e);
      case 2: return small_product<2>(p, a, block, blocks, from, to, e);
      case 4: return small_product<4>(p, a, block, blocks, from, to, e);
      default: return small_product<8>(p, a, block, blocks, from, to, e);
    }
  }
  // Blocks that are unpacked together stay in the first cache; of a row they write as long a piece.
  const size_t fit = kUnpackedRoom / (Isa::kPanel * unpacked_block(p));
  const int most = Isa::kPanel * (fit > 1 ? int(fit) : 1);
  for (int b = 0; b < blocks;) {
    int take = blocks - b < most ? blocks - b : most;
    unpack_panel(p, block + b, take, scratch);
    switch (p.bits) {
#define GREENASR_CASE(x) large_rows<Isa::template unpacked<x>()>(p, a, block + b, take, from, to, e, scratch)
      case 1: GREENASR_CASE(1); break;
      case 2: GREENASR_CASE(2); break;
      case 4: GREENASR_CASE(4); break;
      default: GREENASR_CASE(8);
#undef GREENASR_CASE
    }
    b += take;
  }
}

}  // namespace GREENASR_ISA_NAMESPACE
}  // namespace greenasr
