// A weight matrix in the kernels' layout, and the product of float32 rows with it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace greenasr {

// Memory on a cache line, with room behind for a vector read over the end.
struct Free {
  void operator()(void* p) const;
};
using Bytes = std::unique_ptr<uint8_t[], Free>;
Bytes aligned(size_t bytes);  // zeros

// Memory that a thread keeps from call to call.
struct Scratch {
  Bytes memory;
  size_t room = 0;
  uint8_t* get(size_t bytes) {
    if (bytes > room) {
      memory.reset();
      room = 0;
      memory = aligned(bytes + bytes / 4);
      room = bytes + bytes / 4;
    }
    return memory.get();
  }
};

class Matrix {
 public:
  Matrix(int cols, int group);
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  // Rows of codes (rows, cols) below the ones that are there; `steps` has 1, rows or rows * groups values.
  void add(const int8_t* codes, int rows, int bits, const float* steps, size_t n_steps);

  // Rows generated from a seed (docs/ternary.md), `zeros` in 256ths.
  void add_generated(uint32_t seed, uint32_t layer, int rows, int zeros, bool structured, float step);

  int rows() const { return rows_; }
  int slots() const { return slots_; }  // blocks of 16 outputs
  int cols() const { return cols_; }
  int group() const { return group_; }
  int groups() const { return groups_; }
  int padded() const { return padded_; }
  int depth() const { return depth_; }
  size_t bytes() const { return bytes_; }  // of digits and steps
  // The step of the activations that it is multiplied with; 0: every row's own.
  float step() const { return step_; }
  void set_step(float step);
  const std::vector<Part>& parts() const { return parts_; }
  // The weights of one row as float32, (cols,).
  void row(int o, float* out) const;
  int code(const Part& p, int o, int k) const;

 private:
  int rows_ = 0, slots_ = 0, cols_, group_, groups_, padded_, depth_;
  size_t bytes_ = 0;
  float step_ = 0.0f;
  std::vector<Part> parts_;
  std::vector<Bytes> kept_;
  std::vector<std::unique_ptr<Generated>> generated_;
};

const Kernels& kernels();                      // that this machine or GREENASR_ISA chose
std::vector<const Kernels*> all_kernels();     // that this machine can run, best first
const Kernels& choose_kernels(const std::string& name);  // throws std::invalid_argument

// out[m] = epilogue(x[m] W^T) for m < count.
void linear(const Matrix& w, const Source& x, int count, const Epilogue& e);
// The same with activations as they are, in double: slow, for checking.
void linear_float(const Matrix& w, const Source& x, int count, const Epilogue& e);

// Log-probabilities of chosen columns, (count, n_chosen), and log-sum-exp of every row, (count,); no row is written.
void vocabulary(const Matrix& w, const Source& x, int count, const float* bias, const int32_t* chosen, int n_chosen,
                float* scores, float* normalizer);
// The same with activations as they are.
void vocabulary_float(const Matrix& w, const Source& x, int count, const float* bias, const int32_t* chosen,
                      int n_chosen, float* scores, float* normalizer);
// An LSTM over (frames, streams, I): state h, c (streams, D) before -> after, outputs y (frames, streams, D).
void lstm(const Matrix& input, const Matrix& recurrent, const float* bias, const Source& x, int frames, int streams,
          float* h, float* c, float* y, bool float_activations = false);
// One block of a post-norm Transformer over rows (n * t, D), t tokens of n hypotheses:
//   z = norm(out(attention(qkv(x))) + x),  y = norm(w2(gelu(w1(z))) + z)
// `keys` (n, heads, D / heads, room) and `values` (n, heads, room, D / heads) hold `past` tokens and take the t new
// ones behind them.
struct Block {
  const Matrix *qkv, *out, *w1, *w2;
  const float *qkv_bias, *out_bias, *w1_bias, *w2_bias, *gain1, *bias1, *gain2, *bias2;
  int heads;
  bool float_activations = false;
};
void transformer_block(const Block& b, float* rows, int n, int t, float* keys, float* values, int room, int past);
// Ceilings in this run: bytes a second that all threads read from `bytes` of memory, and integer operations a
// second; the best of slices of `seconds` in all.
double read_rate(size_t bytes, double seconds);
double peak_rate(double seconds);
// A depthwise convolution of x (frames, channels) to `rows` rows.
void depthwise(const Filter& f, const float* x, ptrdiff_t stride, int frames, int rows, const Epilogue& e);

}  // namespace greenasr
