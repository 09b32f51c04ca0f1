// Every instruction set against the portable path, bit for bit, over many shapes; made for the sanitizers:
//
//   cmake -S . -B build/check -DGREENASR_PYTHON=OFF -DGREENASR_CHECK=ON -DGREENASR_SANITIZE=ON -DGREENASR_EMULATE=ON
//   cmake --build build/check && build/check/check_kernels
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "linear.hpp"
#include "pool.hpp"
#include "tdnnf.hpp"

using namespace greenasr;

namespace {

std::mt19937 draw(0);

std::vector<float> normal(size_t n) {
  std::normal_distribution<float> d;
  std::vector<float> x(n);
  for (float& v : x) v = d(draw);
  return x;
}

std::vector<int8_t> codes(int bits, size_t n) {
  const int most = bits == 1 ? 1 : (1 << (bits - 1)) - 1;
  std::uniform_int_distribution<int> d(-most, most);
  std::vector<int8_t> c(n);
  for (int8_t& v : c)
    do v = int8_t(d(draw));
    while (bits == 1 && v == 0);
  return c;
}

// What one matrix gives for one batch: plain, with the whole epilogue, and as a vocabulary.
std::vector<float> results(const Matrix& w, const std::vector<float>& x, int count, const std::vector<float>& vectors) {
  const int n = w.rows();
  std::vector<float> all(size_t(count) * n * 2 + size_t(count) * 4);
  const Source source{x.data(), w.cols(), w.cols(), 1, nullptr, 0, 0};
  Epilogue e;
  e.out = all.data(), e.stride = n;
  linear(w, source, count, e);
  Epilogue f;
  f.out = all.data() + size_t(count) * n, f.stride = n, f.bias = vectors.data(), f.scale = vectors.data() + n;
  f.shift = vectors.data() + 2 * n, f.residual = all.data(), f.residual_stride = n, f.weight = 0.66f;
  f.relu = count % 2 ? Relu::first : Relu::last;
  linear(w, source, count, f);
  std::vector<int32_t> chosen(size_t(count) * 3);
  for (size_t i = 0; i < chosen.size(); i++) chosen[i] = int32_t(i * 7 % size_t(n));
  float* scores = all.data() + size_t(count) * n * 2;
  vocabulary(w, source, count, vectors.data(), chosen.data(), 3, scores, scores + size_t(count) * 3);
  return all;
}

std::vector<float> sequence(const Matrix& input, const Matrix& recurrent, const std::vector<float>& x, int frames,
                            int streams) {
  const size_t dim = size_t(recurrent.cols()), state = dim * size_t(streams);
  std::vector<float> all(state * size_t(frames + 2), 0.1f);
  lstm(input, recurrent, nullptr, Source{x.data(), input.cols(), input.cols(), 1, nullptr, 0, 0}, frames, streams,
       all.data(), all.data() + state, all.data() + 2 * state);
  return all;
}

// Rows, keys and values after a Transformer block.
std::vector<float> transformed(const Block& b, const std::vector<float>& x, int n, int t, int room, int past) {
  const size_t width = size_t(b.qkv->cols()), cache = size_t(n) * width * room;
  std::vector<float> all(x);
  for (size_t i = 0; i < 2 * cache; i++) all.push_back(0.1f * float(i % 17) - 0.7f);
  transformer_block(b, all.data(), n, t, all.data() + x.size(), all.data() + x.size() + cache, room, past);
  return all;
}

// A small TDNN-F of every kind of layer, and its logits for some frames.
struct SmallTdnnf {
  std::vector<std::unique_ptr<Matrix>> matrices;
  std::vector<float> vectors = normal(64);
  Tdnnf net;

  Map map(int rows, int cols) {
    const float step = 0.1f;
    matrices.push_back(std::make_unique<Matrix>(cols, 0));
    matrices.back()->add(codes(2, size_t(rows) * cols).data(), rows, 2, &step, 1);
    return Map{matrices.back().get(), vectors.data(), vectors.data() + 3, vectors.data() + 9};
  }
  SmallTdnnf(const std::vector<int>& strides, int third, int at, bool front, int ivector) {
    constexpr int width = 37, b = 5, feat = 6;
    net.feat_dim = feat, net.ivector_dim = ivector, net.splice = 1, net.third = third, net.at = at, net.bypass = 0.66f;
    if (front) net.front = map(7, 3 * feat);
    net.input = map(width, 3 * (front ? 7 : feat) + ivector);
    for (int s : strides) net.layers.push_back({map(s ? 2 * b : b, width), map(width, s ? 2 * b : b), s});
    net.heads[0] = map(11, width), net.heads[1] = map(20, 11), net.heads[2] = map(9, 20), net.heads[3] = map(13, 9);
    net.check();
  }
  std::vector<float> logits(const std::vector<float>& feats) const {
    const int frames = int(feats.size()) / 6, n = net.outputs(frames);
    std::vector<float> found(size_t(n) * 13);
    std::vector<const float*> norms(2 * (net.layers.size() + 1), nullptr);
    norms[norms.size() - 2] = vectors.data() + 1, norms.back() = vectors.data() + 2;
    tdnnf(net, feats.data(), 6, frames, feats.data(), 0, norms.data(), found.data(), 13);
    return found;
  }
};

int wrong = 0, compared = 0;

void same(const char* what, const char* isa, const std::vector<float>& a, const std::vector<float>& b) {
  compared++;
  if (a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0) return;
  wrong++;
  std::printf("%s differs on %s\n", what, isa);
}

}  // namespace

int main() {
  const auto isas = all_kernels();
  struct Shape {
    int rows, cols, group;
  };
  for (int bits : {1, 2, 3, 4, 6, 8})
    for (Shape s : {Shape{5, 3, 0}, Shape{70, 130, 0}, Shape{33, 96, 32}, Shape{48, 40, 5}, Shape{200, 320, 0}}) {
      Matrix w(s.cols, s.group);
      const auto c = codes(bits, size_t(s.rows) * s.cols);
      const auto steps = normal(size_t(s.rows) * w.groups());
      w.add(c.data(), s.rows, bits, steps.data(), steps.size());
      const auto other = codes(4, size_t(19) * s.cols);
      w.add(other.data(), 19, 4, steps.data(), 1);
      if (w.groups() == 1) w.add_generated(7, 1, 21, 230, false, 0.5f);
      const auto vectors = normal(size_t(w.rows()) * 3);
      for (int count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 33, 50, 300}) {
        const auto x = normal(size_t(count) * s.cols);
        w.set_step(count % 3 ? 0.0f : 0.015f);
        choose_kernels("portable");
        const auto expected = results(w, x, count, vectors);
        for (const Kernels* k : isas) {
          choose_kernels(k->name);
          same("product", k->name, results(w, x, count, vectors), expected);
        }
      }
    }
  // The largest sums that there are: every product as large as it can be.
  for (int bits : {1, 2, 4, 8})
    for (int sign : {-1, 1}) {
      const int rows = 20, cols = 700, most = bits == 1 ? 1 : (1 << (bits - 1)) - 1;
      Matrix w(cols, 0);
      const std::vector<int8_t> c(size_t(rows) * cols, int8_t(most));
      const float step = 1.0f;
      w.add(c.data(), rows, bits, &step, 1);
      const auto vectors = normal(size_t(rows) * 3);
      for (int count : {1, 3, 8, 21}) {
        const std::vector<float> x(size_t(count) * cols, float(sign));
        choose_kernels("portable");
        const auto expected = results(w, x, count, vectors);
        for (const Kernels* k : isas) {
          choose_kernels(k->name);
          same("largest product", k->name, results(w, x, count, vectors), expected);
        }
      }
    }
  for (int streams : {1, 3}) {
    Matrix input(30, 0), recurrent(40, 0);
    const auto a = codes(2, 160 * 30), b = codes(4, 160 * 40);
    const float step = 0.1f;
    input.add(a.data(), 160, 2, &step, 1), recurrent.add(b.data(), 160, 4, &step, 1);
    const auto x = normal(size_t(30) * 9 * streams);
    choose_kernels("portable");
    const auto expected = sequence(input, recurrent, x, 9, streams);
    for (const Kernels* k : isas) {
      choose_kernels(k->name);
      same("lstm", k->name, sequence(input, recurrent, x, 9, streams), expected);
    }
  }
  for (int heads : {1, 2, 3, 12}) {
    constexpr int width = 48, hidden = 70;
    const int shapes[4][2] = {{3 * width, width}, {width, width}, {hidden, width}, {width, hidden}};
    std::vector<std::unique_ptr<Matrix>> maps;
    const float step = 0.05f;
    for (const auto& s : shapes) {
      maps.push_back(std::make_unique<Matrix>(s[1], 0));
      const auto c = codes(4, size_t(s[0]) * s[1]);
      maps.back()->add(c.data(), s[0], 4, &step, 1);
    }
    const auto v = normal(3 * width);
    const Block b{maps[0].get(), maps[1].get(), maps[2].get(), maps[3].get(), v.data(), nullptr, nullptr, nullptr,
                  v.data(),      v.data() + 9,  v.data() + 20, v.data() + 30, heads};
    for (const auto& [n, t, past] : {std::array{1, 1, 0}, {1, 1, 37}, {3, 7, 0}, {2, 21, 70}}) {
      const int room = past + t + heads % 3;
      const auto x = normal(size_t(n) * t * width);
      choose_kernels("portable");
      const auto expected = transformed(b, x, n, t, room, past);
      for (const Kernels* k : isas) {
        choose_kernels(k->name);
        same("transformer block", k->name, transformed(b, x, n, t, room, past), expected);
      }
    }
  }
  for (int channels : {7, 16, 50})
    for (int stride : {1, 2}) {
      const int frames = 61, taps = 11, pad = 5;
      const auto x = normal(size_t(frames) * channels), filter = normal(size_t(taps) * channels);
      const Filter f{filter.data(), taps, channels, stride, 1, pad};
      std::vector<std::vector<float>> found;
      for (const Kernels* k : isas) {
        choose_kernels(k->name);
        const int rows = (frames + 2 * pad - taps) / stride + 1;
        found.emplace_back(size_t(rows) * channels);
        Epilogue e;
        e.out = found.back().data(), e.stride = channels, e.bias = x.data();
        depthwise(f, x.data(), channels, frames, rows, e);
        same("depthwise", k->name, found.back(), found.front());
      }
    }
  const std::vector<int> strides[] = {{1, 2, 0, 1, 3}, {1, 1}, {}, {200, 1}};
  for (const auto& each : strides)
    for (int at = 0; at <= int(each.size()); at++) {
      const SmallTdnnf small(each, at % 2 ? 3 : 2, at, at % 3 == 1, at % 3 == 2 ? 4 : 0);
      for (int frames : {1, 2, 3, 50, 96, 210}) {
        const auto x = normal(size_t(frames) * 6);
        choose_kernels("portable");
        const auto expected = small.logits(x);
        for (const Kernels* k : isas) {
          choose_kernels(k->name);
          std::vector<float> found;
          std::thread([&] { found = small.logits(x); }).join();  // in memory that nobody has used
          same("tdnnf", k->name, found, expected);
        }
      }
    }
  // Many callers at once, and a number of threads that changes under them.
  {
    Matrix w(256, 0);
    const auto c = codes(2, 900 * 256);
    const float step = 1.0f;
    w.add(c.data(), 900, 2, &step, 1);
    const auto x = normal(60 * 256), vectors = normal(2700);
    const auto expected = results(w, x, 60, vectors);
    std::vector<std::thread> callers;
    std::vector<std::vector<float>> found(4);
    for (int i = 0; i < 4; i++)
      callers.emplace_back([&, i] {
        for (int turn = 0; turn < 10; turn++) found[size_t(i)] = results(w, x, 60, vectors);
      });
    for (int n = 1; n <= cores(); n++) set_threads(n);
    for (auto& t : callers) t.join();
    for (const auto& f : found) same("callers", kernels().name, f, expected);
  }
  std::printf("%d comparisons, %d wrong;", compared, wrong);
  for (const Kernels* k : isas) std::printf(" %s", k->name);
  std::printf("\n");
  return wrong != 0;
}
