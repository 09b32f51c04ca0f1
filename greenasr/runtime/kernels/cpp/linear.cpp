#include "linear.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "pool.hpp"

#if defined(GREENASR_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(GREENASR_ARM) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#endif

namespace greenasr {

void Free::operator()(void* p) const { std::free(p); }

Bytes aligned(size_t bytes) {
  size_t room = (bytes + 64 + 4095) / 4096 * 4096;
  void* p = std::aligned_alloc(4096, room);
  if (!p) throw std::bad_alloc();
  std::memset(p, 0, room);
  return Bytes(static_cast<uint8_t*>(p));
}

namespace {

thread_local Scratch rows_scratch, panel_scratch, partial_scratch, gates_scratch, block_scratch;

size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

Matrix::Matrix(int cols, int group) : cols_(cols), group_(group) {
  if (cols < 1 || cols > 65536)
    throw std::invalid_argument("a matrix of " + std::to_string(cols) +
                                " columns: the kernels take 1 to 65536, where sums still fit 32 bits");
  if (group < 0 || (group > 0 && cols % group))
    throw std::invalid_argument("steps every " + std::to_string(group) + " columns do not divide the " +
                                std::to_string(cols) + " columns of the matrix");
  if (group == 0 || group == cols) group_ = cols;
  groups_ = cols / group_;
  padded_ = groups_ == 1 ? cols : int(up(size_t(group_), 4));
  depth_ = int(up(size_t(padded_) * groups_, kDepth) / kDepth);
}

void Matrix::add(const int8_t* codes, int rows, int bits, const float* steps, size_t n_steps) {
  Part p;
  int low = -127, high = 127;
  switch (bits) {
    case 1: p.bits = 1, p.mul = 2, p.off = 1, low = -1, high = 1; break;
    case 2: p.bits = 2, p.off = 1, low = -1, high = 1; break;
    case 3: case 4: p.bits = 4, p.off = 7, high = bits == 3 ? 3 : 7, low = -high; break;
    case 6: p.bits = 8, p.off = 128, high = 31, low = -high; break;
    case 8: p.bits = 8, p.off = 128; break;
    default:
      throw std::invalid_argument("codes of " + std::to_string(bits) +
                                  " bits have no kernel: the widths are 1, 2, 3, 4, 6 and 8");
  }
  if (rows < 1) throw std::invalid_argument("a matrix without rows");
  const size_t all = size_t(rows) * groups_;
  if (n_steps != 1 && n_steps != size_t(rows) && n_steps != all)
    throw std::invalid_argument(std::to_string(n_steps) + " steps for " + std::to_string(rows) + " rows of " +
                                std::to_string(groups_) + " groups: give one, one a row or one a row and group");
  p.rows = rows, p.first = rows_, p.groups = groups_, p.group = padded_, p.depth = depth_;
  p.blocks = int(up(size_t(rows), kLanes) / kLanes), p.slot = slots_, p.cols = cols_;
  Bytes digits = aligned(size_t(p.blocks) * depth_ * p.tile());
  Bytes kept_steps = aligned(size_t(p.blocks) * groups_ * kLanes * 4);
  const int per = 8 / p.bits;
  for (int o = 0; o < rows; o++)
    for (int k = 0; k < cols_; k++) {
      int c = codes[size_t(o) * cols_ + k];
      if (c < low || c > high || (bits == 1 && c == 0))
        throw std::invalid_argument("code " + std::to_string(c) + " at row " + std::to_string(o) + ", column " +
                                    std::to_string(k) + " is not one of " + std::to_string(bits) + " bits");
      int in = k / group_ * padded_ + k % group_, r = in % kDepth / 4;
      uint8_t* t = digits.get() + (size_t(o / kLanes) * depth_ + in / kDepth) * p.tile();
      int digit = bits == 1 ? (c + 1) / 2 : c + p.off;
      t[r / per * 64 + o % kLanes * 4 + in % 4] |= uint8_t(digit << (r % per * p.bits));
    }
  float* s = reinterpret_cast<float*>(kept_steps.get());
  for (int o = 0; o < rows; o++)
    for (int g = 0; g < groups_; g++) {
      size_t at = n_steps == 1 ? 0 : n_steps == all ? size_t(o) * groups_ + g : size_t(o);
      s[(size_t(o / kLanes) * groups_ + g) * kLanes + o % kLanes] = steps[at];
    }
  p.digits = digits.get(), p.steps = s;
  bytes_ += size_t(p.blocks) * depth_ * p.tile() + size_t(p.blocks) * groups_ * kLanes * 4;
  kept_.push_back(std::move(digits));
  kept_.push_back(std::move(kept_steps));
  parts_.push_back(p);
  rows_ += rows, slots_ += p.blocks;
}

void Matrix::add_generated(uint32_t seed, uint32_t layer, int rows, int zeros, bool structured, float step) {
  if (rows < 1 || rows > 1 << 20) throw std::invalid_argument("a generated matrix has 1 to 1048576 rows");
  if (zeros < 0 || zeros > 255 || (structured && (cols_ % 4 || zeros != 128)))
    throw std::invalid_argument("zeros are 0 to 255 of 256, and 128 of a multiple of 4 columns for 2:4");
  if (groups_ != 1) throw std::invalid_argument("a generated matrix has one step");
  auto hash = [](uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
  };
  auto made = std::make_unique<Generated>();
  const uint32_t a = hash(hash(seed ^ 0x243f6a88u) + layer * 0x9e3779b9u);
  const uint32_t b = hash(hash(seed ^ 0x85a308d3u) + layer * 0x85ebca6bu);
  for (uint32_t k = 0; k < 9; k++) {
    made->keys[k][0] = hash(a + k * 0x9e3779b9u);
    made->keys[k][1] = hash(b + k * 0x85ebca6bu);
  }
  made->keep = 256 - zeros, made->structured = structured;
  Part p;
  p.bits = 2, p.off = 1, p.rows = rows, p.first = rows_, p.group = padded_, p.depth = depth_, p.cols = cols_;
  p.blocks = int(up(size_t(rows), kLanes) / kLanes), p.slot = slots_;
  Bytes steps = aligned(size_t(p.blocks) * kLanes * 4);
  for (int o = 0; o < rows; o++) reinterpret_cast<float*>(steps.get())[o] = step;
  p.steps = reinterpret_cast<float*>(steps.get()), p.generated = made.get();
  kept_.push_back(std::move(steps));
  generated_.push_back(std::move(made));
  parts_.push_back(p);
  rows_ += rows, slots_ += p.blocks, bytes_ += sizeof(Generated);
}

void Matrix::set_step(float step) {
  if (!(step == 0.0f || (step >= 1e-30f && step <= 1e30f)))
    throw std::invalid_argument("a step of activations of " + std::to_string(step) + ": give 1e-30 to 1e30, or 0 for each row's own");
  step_ = step;
}

int Matrix::code(const Part& p, int o, int k) const {
  const int per = 8 / p.bits, in = k / group_ * padded_ + k % group_, r = in % kDepth / 4;
  const uint8_t* t = p.digits + (size_t(o / kLanes) * depth_ + in / kDepth) * p.tile();
  int digit = t[r / per * 64 + o % kLanes * 4 + in % 4] >> (r % per * p.bits) & ((1 << p.bits) - 1);
  return p.mul * digit - p.off;
}

void Matrix::row(int o, float* out) const {
  for (const Part& p : parts_)
    if (o >= p.first && o < p.first + p.rows) {
      o -= p.first;
      if (p.generated) {
        uint8_t* bytes = panel_scratch.get(size_t(depth_) * kLanes * kDepth);
        kernels().generate(*p.generated, o / kLanes, cols_, depth_, bytes);
        for (int k = 0; k < cols_; k++)
          out[k] = float(bytes[k / 4 * 64 + o % kLanes * 4 + k % 4] - 1) * p.steps[o];
        return;
      }
      for (int k = 0; k < cols_; k++)
        out[k] = float(code(p, o, k)) * p.steps[(size_t(o / kLanes) * groups_ + k / group_) * kLanes + o % kLanes];
      return;
    }
  throw std::out_of_range("row " + std::to_string(o) + " of a matrix of " + std::to_string(rows_) + " rows");
}

#if defined(GREENASR_X86)
namespace {

struct Features {
  bool avx2 = false, avx2vnni = false, avx512 = false, amx = false;
};

// What processor and system offer; AMX must also be asked for, once a process.
Features look() {
  Features f;
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx2vnni = f.avx2 && (a >> 4 & 1);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && f.avx512 && (d >> 24 & 1) && (d >> 25 & 1)) {
#if defined(__linux__)
    f.amx = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
#endif
  }
#if defined(GREENASR_EMULATE)
  f.avx2vnni = f.avx2;
  f.amx = f.avx512;
#endif
  return f;
}

}  // namespace
#endif

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> found;
#if defined(GREENASR_X86)
  static const Features f = look();
  if (f.amx) found.push_back(&kAmx);
  if (f.avx512) found.push_back(&kAvx512);
  if (f.avx2vnni) found.push_back(&kAvx2Vnni);
  if (f.avx2) found.push_back(&kAvx2);
#endif
#if defined(GREENASR_ARM)
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found.push_back(&kNeon);
#else
  found.push_back(&kNeon);
#endif
#endif
  found.push_back(&kPortable);
  return found;
}

namespace {

const Kernels& named(const std::string& name) {
  std::string known;
  for (const Kernels* k : all_kernels()) {
    if (name == k->name) return *k;
    known += (known.empty() ? "" : ", ") + std::string(k->name);
  }
  throw std::invalid_argument("instruction set '" + name + "' cannot run here: this machine has " + known);
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* k = chosen.load(std::memory_order_acquire);
  if (!k) {
    const char* name = std::getenv("GREENASR_ISA");
    k = name && *name ? &named(name) : all_kernels().front();
    chosen.store(k, std::memory_order_release);
  }
  return *k;
}

const Kernels& choose_kernels(const std::string& name) {
  const Kernels& k = named(name);
  chosen.store(&k, std::memory_order_release);
  return k;
}

namespace {

constexpr int kSlot = 16;    // blocks of a vocabulary whose logits are summed up at once
constexpr int kUnpacked = 3;  // blocks that a kernel unpacks at once, the most of all

// Logits go to memory that stays in the cache; of every row and `kSlot` blocks the largest and the sum of
// exp(logit - largest) are kept, and the logits of chosen columns.
struct Vocabulary {
  float *largest, *sum;   // [count][slots]
  int slots;
  const int32_t* chosen;  // [count][n_chosen]
  float* scores;          // the same
  int n_chosen;
};

int slots(const Part& p) { return (p.blocks + kSlot - 1) / kSlot; }

struct Job {
  const Kernels* k;
  const Matrix* w;
  Source source;
  Rows rows;
  Epilogue e;
  int8_t* values;
  float* scale;
  int32_t* sums;
  int count, rows_a_chunk;
  int panel, row_chunk;  // blocks and rows a chunk of the product
  const Vocabulary* v;   // what happens to the outputs instead of being kept, or null
};

void quantize_rows(void* context, int chunk) {
  Job& j = *static_cast<Job*>(context);
  int from = chunk * j.rows_a_chunk, to = from + j.rows_a_chunk;
  if (to > j.count) to = j.count;
  for (int m = from; m < to; m++)
    j.k->quantize(j.source, m, const_cast<int8_t*>(j.rows.at(m)), j.rows.next(), j.rows.depth, j.scale + m,
                  j.sums + size_t(m) * j.rows.groups);
}

// Panels of a part, and the blocks of one of them in even shares; a vocabulary's begin with a slot.
struct Panels {
  int unit, units, count;
  Panels(const Job& j, const Part& p) {
    unit = j.v ? kSlot : 1, units = (p.blocks + unit - 1) / unit;
    const int each = j.panel > unit ? j.panel / unit : 1;
    count = (units + each - 1) / each;
  }
  int begin(int at, const Part& p) const {
    const int block = int(long(at) * units / count) * unit;
    return block < p.blocks ? block : p.blocks;
  }
};

void keep_sums(const Job& j, const Part& p, int slot, int block, int blocks, int from, int to, const Epilogue& e) {
  const Vocabulary& v = *j.v;
  const int begin = p.first + block * kLanes, left = p.rows - block * kLanes;
  const int n = left < blocks * kLanes ? left : blocks * kLanes;
  for (int m = from; m < to; m++) {
    const float* y = e.out + ptrdiff_t(m) * e.stride + begin;
    for (int at = 0, s = slot; at < n; at += kSlot * kLanes, s++) {
      const size_t to_slot = size_t(m) * v.slots + s;
      j.k->log_sum(y + at, nullptr, n - at < kSlot * kLanes ? n - at : kSlot * kLanes, v.largest + to_slot, v.sum + to_slot);
    }
    for (int i = 0; i < v.n_chosen; i++) {
      const int at = v.chosen[ptrdiff_t(m) * v.n_chosen + i] - begin;
      if (at >= 0 && at < n) v.scores[ptrdiff_t(m) * v.n_chosen + i] = y[at];
    }
  }
}

void product_chunk(void* context, int chunk) {
  Job& j = *static_cast<Job*>(context);
  int across = 0;
  for (const Part& p : j.w->parts()) across += Panels(j, p).count;
  int from = chunk / across * j.row_chunk, to = from + j.row_chunk, at = chunk % across, slot = 0;
  if (to > j.count) to = j.count;
  for (const Part& p : j.w->parts()) {
    const Panels panels(j, p);
    if (at < panels.count) {
      const int block = panels.begin(at, p), blocks = panels.begin(at + 1, p) - block;
      const size_t least = size_t(kUnpacked) * p.depth * kLanes * kDepth, room = least > kUnpackedRoom ? least : kUnpackedRoom;
      if (!j.v) return j.k->product(p, j.rows, block, blocks, from, to, j.e, panel_scratch.get(room));
      Epilogue e = j.e;
      e.stride = ptrdiff_t(blocks) * kLanes + kLanes;  // not a power of two
      uint8_t* scratch = panel_scratch.get(room + size_t(to - from) * e.stride * 4);
      e.out = reinterpret_cast<float*>(scratch + room) - from * e.stride - (p.first + block * kLanes);
      j.k->product(p, j.rows, block, blocks, from, to, e, scratch);
      return keep_sums(j, p, slot + block / kSlot, block, blocks, from, to, e);
    }
    at -= panels.count, slot += slots(p);
  }
}

void run(const Matrix& w, const Source& x, int count, const Epilogue& e, const Vocabulary* v) {
  if (count < 1) return;
  Job j;
  j.k = &kernels();
  j.w = &w, j.source = x, j.e = e, j.count = count, j.v = v;
  j.source.group = w.group(), j.source.padded = w.padded(), j.source.step = w.step();
  Rows& r = j.rows;
  r.count = count, r.rows = count <= kFewRows ? count : kMostRows, r.depth = w.depth(), r.groups = w.groups();
  const size_t blocks = up(size_t(count), size_t(r.rows));
  const size_t values = up(blocks * r.depth * kDepth, 64), scale = up(size_t(count) * 4, 64);
  uint8_t* room = rows_scratch.get(values + scale + size_t(count) * r.groups * 4);
  r.values = j.values = reinterpret_cast<int8_t*>(room);
  r.scale = j.scale = reinterpret_cast<float*>(room + values);
  r.sums = j.sums = reinterpret_cast<int32_t*>(room + values + scale);

  const double work = double(count) * w.rows() * w.cols();
  const bool together = threads() > 1 && (work > 4e6 || double(w.bytes()) > 64e3);
  j.rows_a_chunk = count >= 16 && together ? 8 : count;
  const int chunks = (count + j.rows_a_chunk - 1) / j.rows_a_chunk;
  if (together) parallel(chunks, quantize_rows, &j);
  else quantize_rows(&j, 0);

  j.row_chunk = v ? 64 : count <= 256 ? count : 128;
  // Of many rows wider panels write longer pieces of each, as long as there is work for everyone.
  const int sharers = together ? 4 * threads() : 1;
  j.panel = count <= kFewRows ? j.k->few_panel : j.k->many_panel;
  const int wider = count <= kFewRows ? 1 : w.slots() / (j.panel * sharers);
  j.panel *= wider < 1 ? 1 : wider > 16 ? 16 : wider;
  int across = 0;
  for (const Part& p : w.parts()) across += Panels(j, p).count;
  const int down = (count + j.row_chunk - 1) / j.row_chunk;
  if (together) parallel(across * down, product_chunk, &j);
  else
    for (int c = 0; c < across * down; c++) product_chunk(&j, c);
}

}  // namespace

void linear(const Matrix& w, const Source& x, int count, const Epilogue& e) { run(w, x, count, e, nullptr); }

void vocabulary(const Matrix& w, const Source& x, int count, const float* bias, const int32_t* chosen, int n_chosen,
                float* scores, float* normalizer) {
  if (count < 1) return;
  Vocabulary v;
  v.slots = 0;
  for (const Part& p : w.parts()) v.slots += slots(p);
  v.largest = reinterpret_cast<float*>(partial_scratch.get(size_t(count) * v.slots * 8));
  v.sum = v.largest + size_t(count) * v.slots;
  v.chosen = chosen, v.scores = scores, v.n_chosen = n_chosen;
  Epilogue e;
  e.bias = bias;
  run(w, x, count, e, &v);
  for (int m = 0; m < count; m++) {
    float largest, sum;
    kernels().log_sum(v.largest + size_t(m) * v.slots, v.sum + size_t(m) * v.slots, v.slots, &largest, &sum);
    normalizer[m] = float(double(largest) + std::log(double(sum)));
    for (int i = 0; i < n_chosen; i++) scores[size_t(m) * n_chosen + i] -= normalizer[m];
  }
}

void lstm(const Matrix& input, const Matrix& recurrent, const float* bias, const Source& x, int frames, int streams,
          float* h, float* c, float* y, bool float_activations) {
  const auto product = float_activations ? linear_float : linear;
  const int dim = recurrent.cols();
  float* gates = reinterpret_cast<float*>(gates_scratch.get(size_t(frames) * streams * 4 * dim * 4));
  Epilogue e;
  e.out = gates, e.stride = 4 * dim, e.bias = bias;
  product(input, x, frames * streams, e);
  const Kernels& k = kernels();
  for (int t = 0; t < frames; t++) {
    float* now = gates + size_t(t) * streams * 4 * dim;
    Epilogue r;
    r.out = now, r.stride = 4 * dim, r.residual = now, r.residual_stride = 4 * dim;
    product(recurrent, Source{h, dim, dim, 1, nullptr, 0, 0}, streams, r);
    for (int s = 0; s < streams; s++) {
      k.lstm_cell(now + size_t(s) * 4 * dim, c + size_t(s) * dim, h + size_t(s) * dim, dim);
      std::memcpy(y + (size_t(t) * streams + s) * dim, h + size_t(s) * dim, size_t(dim) * 4);
    }
  }
}

namespace {

struct Heads {
  const Kernels* k;
  const float *qkv, *keys, *values;
  float *scores, *y;
  int n, t, heads, dim, room, past, score_room;
};

void one_head(void* context, int chunk) {
  const Heads& j = *static_cast<Heads*>(context);
  const int n = chunk / j.heads, h = chunk % j.heads, width = j.dim * j.heads;
  const size_t cache = size_t(chunk) * j.room * j.dim;
  j.k->attention(j.qkv + size_t(n) * j.t * 3 * width + size_t(h) * j.dim, 3 * width, j.t, j.keys + cache, j.values + cache,
                 j.past + j.t, j.room, j.dim, float(1 / std::sqrt(double(j.dim))), j.scores + size_t(chunk) * j.score_room,
                 j.y + size_t(n) * j.t * width + size_t(h) * j.dim, width);
}

}  // namespace

void transformer_block(const Block& b, float* rows, int n, int t, float* keys, float* values, int room, int past) {
  const int width = b.qkv->cols(), hidden = b.w1->rows(), dim = width / b.heads, m = n * t;
  const int wide = 3 * width > hidden ? 3 * width : hidden;
  const size_t score_room = kQueries * up(size_t(past + t), kLanes);
  float* wider = reinterpret_cast<float*>(
      block_scratch.get((size_t(m) * (wide + width) + size_t(n) * b.heads * score_room) * 4));
  float *y = wider + size_t(m) * wide, *scores = y + size_t(m) * width;
  const Kernels& k = kernels();
  auto product = [m, &b](const Matrix& w, const float* x, float* to, const float* bias, Relu relu, const float* residual) {
    Epilogue e;
    e.out = to, e.stride = w.rows(), e.bias = bias, e.relu = relu, e.residual = residual, e.residual_stride = w.rows();
    (b.float_activations ? linear_float : linear)(w, Source{x, w.cols(), w.cols(), 1, nullptr, 0, 0}, m, e);
  };
  product(*b.qkv, rows, wider, b.qkv_bias, Relu::none, nullptr);
  for (int i = 0; i < n; i++)
    for (int h = 0; h < b.heads; h++)
      for (int s = 0; s < t; s++) {
        const float* from = wider + (size_t(i) * t + s) * 3 * width + size_t(h) * dim;
        const size_t head = (size_t(i) * b.heads + h) * room * dim, at = size_t(past + s);
        for (int d = 0; d < dim; d++) keys[head + size_t(d) * room + at] = from[width + d];
        std::memcpy(values + head + at * dim, from + 2 * width, size_t(dim) * 4);
      }
  Heads j{&k, wider, keys, values, scores, y, n, t, b.heads, dim, room, past, int(score_room)};
  if (threads() > 1 && double(m) * width * (past + t) > 2e5) parallel(n * b.heads, one_head, &j);
  else
    for (int c = 0; c < n * b.heads; c++) one_head(&j, c);
  product(*b.out, y, rows, b.out_bias, Relu::none, rows);
  for (int i = 0; i < m; i++) k.layer_norm(rows + size_t(i) * width, width, b.gain1, b.bias1, 1e-5f, rows + size_t(i) * width);
  product(*b.w1, rows, wider, b.w1_bias, Relu::gelu, nullptr);
  product(*b.w2, wider, rows, b.w2_bias, Relu::none, rows);
  for (int i = 0; i < m; i++) k.layer_norm(rows + size_t(i) * width, width, b.gain2, b.bias2, 1e-5f, rows + size_t(i) * width);
}

namespace {

struct Ceiling {
  const Kernels* k;
  const uint8_t* memory;
  size_t bytes;
  size_t slice;  // bytes of a turn
  int times, turn;
  long n;
  std::atomic<uint32_t> kept{0};
};

void read_chunk(void* context, int chunk) {
  Ceiling& c = *static_cast<Ceiling*>(context);
  uint32_t sum = 0;
  const uint8_t* from = c.memory + size_t(chunk) * c.bytes + size_t(c.turn) % (c.bytes / c.slice) * c.slice;
  for (int i = 0; i < c.times; i++) sum ^= c.k->read(from, c.slice);
  c.kept ^= sum;
}

void peak_chunk(void* context, int) {
  Ceiling& c = *static_cast<Ceiling*>(context);
  c.k->peak(c.n);
}

// The best rate of `amount` a call of fn on every thread, in slices until the seconds are over.
double best_rate(Ceiling& c, Chunk fn, double amount, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  double best = 0;
  do {
    const auto start = Clock::now();
    parallel(threads(), fn, &c);
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    if (amount / took > best) best = amount / took;
    c.turn++;
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

}  // namespace

double read_rate(size_t bytes, double seconds) {
  const size_t each = bytes / size_t(threads()) / 512 * 512;
  if (each == 0) throw std::invalid_argument("too few bytes to measure");
  Bytes memory = aligned(each * size_t(threads()));
  Ceiling c;
  c.k = &kernels(), c.memory = memory.get(), c.bytes = each, c.n = 0;
  // Short turns, so that some are undisturbed; large memory is read piece by piece.
  const size_t most = size_t(1) << 22;
  c.slice = each > most ? most : each;
  c.times = each >= (1u << 20) ? 1 : int((1u << 20) / each), c.turn = 0;
  return best_rate(c, read_chunk, double(c.slice) * threads() * c.times, seconds);
}

double peak_rate(double seconds) {
  Ceiling c;
  c.k = &kernels(), c.memory = nullptr, c.bytes = 0, c.slice = 0, c.times = 0, c.turn = 0;
  c.n = 1000;
  const double amount = c.k->peak(c.n) * threads();
  return best_rate(c, peak_chunk, amount, seconds);
}

namespace {

struct FilterJob {
  const Kernels* k;
  const Filter* f;
  const float* x;
  ptrdiff_t stride;
  int frames, rows, rows_a_chunk;
  const Epilogue* e;
};

void filter_chunk(void* context, int chunk) {
  FilterJob& j = *static_cast<FilterJob*>(context);
  const int across = (j.f->channels + kLanes - 1) / kLanes;
  int from = chunk / across * j.rows_a_chunk, to = from + j.rows_a_chunk;
  if (to > j.rows) to = j.rows;
  const size_t room = size_t(j.f->n + j.f->reach(to - from)) * kLanes * 4;
  float* scratch = reinterpret_cast<float*>(panel_scratch.get(room));
  j.k->depthwise(*j.f, j.x, j.stride, j.frames, from, to, chunk % across * kLanes, *j.e, scratch);
}

}  // namespace

void depthwise(const Filter& f, const float* x, ptrdiff_t stride, int frames, int rows, const Epilogue& e) {
  if (rows < 1) return;
  FilterJob j{&kernels(), &f, x, stride, frames, rows, rows < 512 ? rows : 512, &e};
  const int chunks = (f.channels + kLanes - 1) / kLanes * ((rows + j.rows_a_chunk - 1) / j.rows_a_chunk);
  if (threads() > 1 && double(rows) * f.channels * f.n > 1e5) return parallel(chunks, filter_chunk, &j);
  for (int c = 0; c < chunks; c++) filter_chunk(&j, c);
}

namespace {

// Rows of activations as they are, end to end.
std::vector<float> gathered(const Source& x, int count) {
  const size_t cols = size_t(x.taps) * x.width;
  std::vector<float> rows(size_t(count) * cols);
  for (int m = 0; m < count; m++)
    for (int tap = 0; tap < x.taps; tap++) {
      const int32_t from = x.index ? x.index[ptrdiff_t(m) * x.taps + tap] : m;
      if (from >= 0) std::memcpy(&rows[size_t(m) * cols + size_t(tap) * x.width], x.x + from * x.stride, size_t(x.width) * 4);
    }
  return rows;
}

double dot(const float* x, const std::vector<float>& weights) {
  double sum = 0;
  for (size_t k = 0; k < weights.size(); k++) sum += double(x[k]) * weights[k];
  return sum;
}

}  // namespace

void linear_float(const Matrix& w, const Source& x, int count, const Epilogue& e) {
  const std::vector<float> rows = gathered(x, count);
  std::vector<float> weights(size_t(w.cols()));
  for (int o = 0; o < w.rows(); o++) {
    w.row(o, weights.data());
    for (int m = 0; m < count; m++) {
      float y = float(dot(&rows[size_t(m) * weights.size()], weights));
      if (e.bias) y += e.bias[o];
      if (e.relu == Relu::first) y = y > 0 || y != y ? y : 0.0f;
      if (e.relu == Relu::gelu) y = float(y * 0.5 * (1 + std::erf(double(y) * 0.70710678118654752)));
      if (e.scale) y *= e.scale[o];
      if (e.shift) y += e.shift[o];
      if (e.residual) y += e.residual[m * e.residual_stride + o] * e.weight;
      if (e.relu == Relu::last) y = y > 0 || y != y ? y : 0.0f;
      e.out[m * e.stride + o] = y;
    }
  }
}

void vocabulary_float(const Matrix& w, const Source& x, int count, const float* bias, const int32_t* chosen,
                      int n_chosen, float* scores, float* normalizer) {
  const std::vector<float> rows = gathered(x, count);
  std::vector<float> weights(size_t(w.cols()));
  std::vector<double> largest(size_t(count), -INFINITY), sum(size_t(count), 0.0);
  for (int o = 0; o < w.rows(); o++) {
    w.row(o, weights.data());
    for (int m = 0; m < count; m++) {
      const double y = dot(&rows[size_t(m) * weights.size()], weights) + (bias ? bias[o] : 0.0f);
      double &top = largest[size_t(m)], &mass = sum[size_t(m)];
      if (y > top) mass = mass * std::exp(top - y) + 1, top = y;
      else mass += std::exp(y - top);  // NaN stays
      for (int i = 0; i < n_chosen; i++)
        if (chosen[size_t(m) * n_chosen + i] == o) scores[size_t(m) * n_chosen + i] = float(y);
    }
  }
  for (int m = 0; m < count; m++) {
    normalizer[m] = float(largest[size_t(m)] + std::log(sum[size_t(m)]));
    for (int i = 0; i < n_chosen; i++) scores[size_t(m) * n_chosen + i] -= normalizer[m];
  }
}

}  // namespace greenasr
