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
constexpr int kFewRows = 8;    // up to as many rows of activations make a block of their own
constexpr int kMostRows = 16;  // rows of activations a block
constexpr int kUnpackedRoom = 16384;  // bytes of unpacked digits that are used together, if more than one panel fits
constexpr int kQueries = 4;    // queries that attend together

// A run of rows at one width in the kernels' layout: tiles of 16 outputs x 64 inputs.  Of a tile, vector z (64 bytes)
// holds in byte 4 n + i, at bit b j, the digit of output n and input 4 (z * 8/b + j) + i.
struct Part {
  int rows = 0, first = 0;      // outputs, and the column where they go
  int slot = 0;                 // blocks of 16 before this part
  int bits = 8;                 // 1, 2, 4 or 8
  int mul = 1, off = 0;         // code = mul * digit - off
  int blocks = 0, depth = 0;    // ceil(rows / 16), and tiles a block
  int groups = 1, group = 0;    // steps an output, and padded inputs that share one
  const uint8_t* digits = nullptr;
  const float* steps = nullptr;  // [blocks][groups][16]
  const struct Generated* generated = nullptr;  // instead of digits
  int cols = 0;
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
enum class Relu : int { none = 0, first = 1, last = 2, gelu = 3 };  // gelu comes first
struct Epilogue {
  float* out = nullptr;
  ptrdiff_t stride = 0;
  const float *bias = nullptr, *scale = nullptr, *shift = nullptr, *residual = nullptr;
  ptrdiff_t residual_stride = 0;
  float weight = 1.0f;
  Relu relu = Relu::none;
};

// A convolution of every channel with a filter of its own: rows t of `out` are sums over k of
// filter[k] * x[t * stride + k * dilation - pad], x zero outside; then the epilogue's arithmetic.
struct Filter {
  const float* taps = nullptr;  // [n][channels]
  int n = 0, channels = 0, stride = 1, dilation = 1, pad = 0;
  int reach(int rows) const { return (rows - 1) * stride + (n - 1) * dilation + 1; }  // inputs of so many rows
};

// A matrix of signs that is generated and not stored (docs/ternary.md).
struct Generated {
  uint32_t keys[9][2];  // of the sign and of the eight planes of the mask
  int keep = 256;       // 256 - zeros
  bool structured = false;
};

// Where float32 rows come from: row m is x[index[m, 0]], x[index[m, 1]], … end to end; -1 stands for zeros.
struct Source {
  const float* x = nullptr;
  ptrdiff_t stride = 0;
  int width = 0, taps = 1;         // inputs a tap
  const int32_t* index = nullptr;  // [M][taps], or null for x[m]
  int group = 0, padded = 0;       // inputs that share a step, and their room in the layout (0: all in one)
  float step = 0.0f;               // of the activations, the same for all rows; 0: each row's largest / 127
};

struct Kernels {
  const char* name;
  int few_panel, many_panel;  // blocks of outputs that one call takes at best, for few rows and for many
  void (*quantize)(const Source&, int m, int8_t* values, size_t next, int depth, float* scale, int32_t* sums);
  // Columns of `blocks` blocks from `block` on, for rows from..to; `scratch` holds 3 * depth * 1024
  // bytes and kUnpackedRoom.
  void (*product)(const Part&, const Rows&, int block, int blocks, int from, int to, const Epilogue&,
                  uint8_t* scratch);
  // Of n numbers y the largest and the sum of mass * exp(y - largest); without `mass` it is 1.
  void (*log_sum)(const float* y, const float* mass, int n, float* largest, float* sum);
  // i, f, g, o before their functions (4 * dim) and c -> c and h, dim each.
  void (*lstm_cell)(const float* gates, float* c, float* h, int dim);
  // Rows from..to and channels c..c + 16 of a convolution; scratch for 16 of every tap and input.
  void (*depthwise)(const Filter&, const float* x, ptrdiff_t x_stride, int frames, int from, int to, int c,
                    const Epilogue&, float* scratch);
  // (x - mean) / sqrt(variance + eps) * gain + bias over n numbers.
  void (*layer_norm)(const float* x, int n, const float* gain, const float* bias, float eps, float* out);
  // softmax(q Kᵀ * scale) V of one head: `queries` rows of q, of which the last sees all `keys` columns of K (dim, room)
  // and rows of V (room, dim), each one before it one less; `scores` holds kQueries rows of `keys`, rounded up to 16.
  void (*attention)(const float* q, ptrdiff_t q_stride, int queries, const float* k, const float* v, int keys, int room,
                    int dim, float scale, float* scores, float* out, ptrdiff_t out_stride);
  // Ceilings: all bytes read once, 512 at a time; n times 16 independent instructions of integer products.
  uint32_t (*read)(const uint8_t* p, size_t bytes);
  double (*peak)(long n);  // the multiplications and additions done
  // Digits (code + 1) of a generated block of 16 rows, as bytes in the layout of unpacked tiles.
  void (*generate)(const Generated&, int block, int cols, int depth, uint8_t* bytes);
};

extern const Kernels kPortable;
#if defined(GREENASR_X86)
extern const Kernels kAvx2, kAvx2Vnni, kAvx512, kAmx;
#endif
#if defined(GREENASR_ARM)
extern const Kernels kNeon;
#endif

}  // namespace greenasr
