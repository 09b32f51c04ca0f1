// What every instruction set must be able to do, and the values that pass between them.
//
//   y[m,o] = sa[m] * sum_g step[o,g] * (mul * sum_k u[o,k] a[m,k] - off * sum_k a[m,k])  + bias[o] …
//
// u are unsigned digits of 1, 2, 4 or 8 bits, a the activations as int8 with one scale sa a row.  The sums over k
// are integers, hence the same on every machine; what follows is float32 in one written order, without
// fused multiply-add, hence the same too.
#pragma once
#include <cstddef>
#include <cstdint>

namespace greenasr {

constexpr int kLanes = 16;   // outputs side by side in the layout
constexpr int kDepth = 64;   // inputs a tile
constexpr int kFewRows = 8;    // rows of activations that are multiplied with packed digits; for more they are unpacked
constexpr int kMostRows = 16;  // rows of activations a block

// A run of rows at one width in the kernels' layout: tiles of 16 outputs x 64 inputs.  Of a tile, vector z (64 bytes)
// holds in byte 4 n + i, at bit b j, the digit of output n and input 4 (z * 8/b + j) + i.
struct Part {
  int rows = 0, first = 0;      // outputs, and the column where they go
  int bits = 8;                 // 1, 2, 4 or 8
  int mul = 1, off = 0;         // code = mul * digit - off
  int blocks = 0, depth = 0;    // ceil(rows / 16), and tiles a block
  int groups = 1, group = 0;    // steps an output, and padded inputs that share one
  const uint8_t* digits = nullptr;
  const float* steps = nullptr;  // [blocks][groups][16]
  size_t tile() const { return size_t(kLanes) * kDepth * bits / 8; }
};

// Activations as int8: blocks of `rows` rows x 64 inputs, block after block of inputs, then of rows.
struct Rows {
  const int8_t* values = nullptr;
  const float* scale = nullptr;   // [count]
  const int32_t* sums = nullptr;  // [count][groups]
  int count = 0, rows = 1, depth = 0, groups = 1;
  const int8_t* at(int m) const {
    return values + size_t(m / rows) * rows * depth * kDepth + size_t(m % rows) * kDepth;
  }
  size_t next() const { return size_t(rows) * kDepth; }  // from one tile of inputs to the next
};

// y = relu(product + bias) * scale + shift + weight * residual; the ReLU may come last instead.
enum class Relu : int { none = 0, first = 1, last = 2 };
struct Epilogue {
  float* out = nullptr;
  ptrdiff_t stride = 0;
  const float *bias = nullptr, *scale = nullptr, *shift = nullptr, *residual = nullptr;
  ptrdiff_t residual_stride = 0;
  float weight = 1.0f;
  Relu relu = Relu::none;
};

// Where float32 rows come from: row m is x[index[m, 0]], x[index[m, 1]], … end to end; -1 stands for zeros.
struct Source {
  const float* x = nullptr;
  ptrdiff_t stride = 0;
  int width = 0, taps = 1;         // inputs a tap
  const int32_t* index = nullptr;  // [M][taps], or null for x[m]
  int group = 0, padded = 0;       // inputs that share a step, and their room in the layout (0: all in one)
};

struct Kernels {
  const char* name;
  int few_panel, many_panel;  // blocks of outputs that one call takes at best, for few rows and for many
  void (*quantize)(const Source&, int m, int8_t* values, size_t next, int depth, float* scale, int32_t* sums);
  // Columns of `blocks` blocks from `block` on, for rows from..to; `scratch` holds blocks * depth * 1024 bytes.
  void (*product)(const Part&, const Rows&, int block, int blocks, int from, int to, const Epilogue&,
                  uint8_t* scratch);
};

extern const Kernels kPortable;
#if defined(GREENASR_X86)
extern const Kernels kAvx2, kAvx2Vnni, kAvx512, kAmx;
#endif
#if defined(GREENASR_ARM)
extern const Kernels kNeon;
#endif

}  // namespace greenasr
