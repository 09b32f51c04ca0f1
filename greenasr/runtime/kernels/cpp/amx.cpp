// AMX: for more than eight rows, tiles of 16 x 64 activations times 64 x 16 digits; else as AVX-512.
//
// Two tiles of activations and two of digits give four of sums, so every tile that is read serves twice.  Digits are
// unpacked to bytes once a panel of 32 outputs; both operands lie in memory tile after tile.
#include <immintrin.h>

#include "kernels.hpp"

#define GREENASR_ISA_NAMESPACE amx
#include "avx512.hpp"
#include "body.hpp"

#if defined(GREENASR_EMULATE)
namespace {
// The instructions in plain C++, for tests on machines without them.
thread_local unsigned char emulated[8][1024];
struct Emulate {
  static void load(int t, const void* p, long stride) {
    for (int r = 0; r < 16; r++) memcpy(emulated[t] + 64 * r, static_cast<const char*>(p) + r * stride, 64);
  }
  static void store(int t, void* p, long stride) {
    for (int r = 0; r < 16; r++) memcpy(static_cast<char*>(p) + r * stride, emulated[t] + 64 * r, 64);
  }
  static void zero(int t) { memset(emulated[t], 0, 1024); }
  static void signed_by_unsigned(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
      for (int n = 0; n < 16; n++) {
        int sum;
        memcpy(&sum, emulated[c] + 64 * m + 4 * n, 4);
        for (int k = 0; k < 16; k++)
          for (int i = 0; i < 4; i++)
            sum += static_cast<signed char>(emulated[a][64 * m + 4 * k + i]) * emulated[b][64 * k + 4 * n + i];
        memcpy(emulated[c] + 64 * m + 4 * n, &sum, 4);
      }
  }
};
}  // namespace
#define TILE_LOAD(t, p, stride) Emulate::load(t, p, stride)
#define TILE_STORE(t, p, stride) Emulate::store(t, p, stride)
#define TILE_ZERO(t) Emulate::zero(t)
#define TILE_DOT(c, a, b) Emulate::signed_by_unsigned(c, a, b)
#else
#define TILE_LOAD(t, p, stride) _tile_loadd(t, p, stride)
#define TILE_STORE(t, p, stride) _tile_stored(t, p, stride)
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_DOT(c, a, b) _tile_dpbsud(c, a, b)
#endif

namespace greenasr {
namespace amx {

struct alignas(64) Shapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static const Shapes shapes;

// Sums of 32 rows x 32 outputs, or of 16 rows or 16 outputs: [row half][output half][16][16].
template <bool TwoRows, bool TwoBlocks>
static void tiles(const int8_t* a, size_t rows16, const uint8_t* u, size_t block, int depth, int32_t* sums) {
  TILE_ZERO(0);
  if (TwoBlocks) TILE_ZERO(1);
  if (TwoRows) TILE_ZERO(2);
  if (TwoRows && TwoBlocks) TILE_ZERO(3);
  for (int k = 0; k < depth; k++, a += 1024, u += 1024) {
    TILE_LOAD(4, a, 64);
    TILE_LOAD(6, u, 64);
    TILE_DOT(0, 4, 6);
    if (TwoBlocks) {
      TILE_LOAD(7, u + block, 64);
      TILE_DOT(1, 4, 7);
    }
    if (TwoRows) {
      TILE_LOAD(5, a + rows16, 64);
      TILE_DOT(2, 5, 6);
      if (TwoBlocks) TILE_DOT(3, 5, 7);
    }
  }
  TILE_STORE(0, sums, 64);
  if (TwoBlocks) TILE_STORE(1, sums + 256, 64);
  if (TwoRows) TILE_STORE(2, sums + 512, 64);
  if (TwoRows && TwoBlocks) TILE_STORE(3, sums + 768, 64);
}

static void product_of_tiles(const Part& p, const Rows& a, int block, int blocks, int from, int to, const Epilogue& e,
                             uint8_t* scratch) {
  if (a.rows != kMostRows || p.groups > 1) return product(p, a, block, blocks, from, to, e, scratch);
#if !defined(GREENASR_EMULATE)
  _tile_loadconfig(&shapes);
#endif
  const size_t beside = size_t(p.depth) * 1024, rows16 = size_t(p.depth) * 1024;
  alignas(64) int32_t sums[1024];
  for (int b = 0; b < blocks; b += 2) {
    const bool two_blocks = blocks - b > 1;
    unpack_panel(p, block + b, two_blocks ? 2 : 1, scratch);
    for (int m = from; m < to; m += 32) {
      const bool two_rows = to - m > 16;
      const int8_t* rows = a.at(m);
      if (two_rows && two_blocks) tiles<true, true>(rows, rows16, scratch, beside, p.depth, sums);
      else if (two_rows) tiles<true, false>(rows, rows16, scratch, beside, p.depth, sums);
      else if (two_blocks) tiles<false, true>(rows, rows16, scratch, beside, p.depth, sums);
      else tiles<false, false>(rows, rows16, scratch, beside, p.depth, sums);
      const int n_rows = to - m < 32 ? to - m : 32;
      for (int n = 0; n < (two_blocks ? 2 : 1); n++) {
        const int at = block + b + n, first = at * kLanes;
        for (int i = 0; i < n_rows; i++)
          finish(stepped(sums + i / 16 * 512 + n * 256 + i % 16 * kLanes, p, at, 0, a.sums[m + i]) * a.scale[m + i], m + i,
                 p.first + first, p.rows - first, e);
      }
    }
  }
#if !defined(GREENASR_EMULATE)
  _tile_release();
#endif
}

static double tile_peak(long n) {
#if !defined(GREENASR_EMULATE)
  _tile_loadconfig(&shapes);
#endif
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  TILE_ZERO(4);
  TILE_ZERO(5);
  TILE_ZERO(6);
  TILE_ZERO(7);
  for (long k = 0; k < n; k++) {
    TILE_DOT(0, 4, 6);
    TILE_DOT(1, 4, 7);
    TILE_DOT(2, 5, 6);
    TILE_DOT(3, 5, 7);
  }
#if !defined(GREENASR_EMULATE)
  _tile_release();
#endif
  return double(n) * 4 * 16 * 16 * 64 * 2;
}

}  // namespace amx

const Kernels kAmx{"amx", 8, 2,
    amx::quantize, amx::product_of_tiles, amx::log_sum, amx::lstm_cell, amx::depthwise,
    amx::layer_norm, amx::attention, amx::read, amx::tile_peak, amx::generate};
}  // namespace greenasr
