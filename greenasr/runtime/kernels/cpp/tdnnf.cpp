#include "tdnnf.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)0)
#endif

namespace greenasr {

void Tdnnf::check() const {
  auto fit = [](const Map& m, int inputs, const std::string& name) {
    if (m.w->cols() != inputs)
      throw std::invalid_argument("'" + name + "' reads " + std::to_string(m.w->cols()) + " numbers, before it are " +
                                  std::to_string(inputs));
    return m.w->rows();
  };
  if (splice < 0 || third < 1 || at < 0 || at > int(layers.size()) || feat_dim < 1 || ivector_dim < 0)
    throw std::invalid_argument("a network of such settings cannot be");
  const int taps = 2 * splice + 1, read = front.w ? fit(front, taps * feat_dim, "front") : feat_dim;
  const int width = fit(input, taps * read + ivector_dim, "input");
  for (size_t i = 0; i < layers.size(); i++) {
    const Layer& l = layers[i];
    const std::string name = "layers." + std::to_string(i);
    const int b = fit(l.linear, width, name + ".linear");
    if (l.stride < 0 || (l.stride && b % 2)) throw std::invalid_argument("'" + name + "' has no two taps");
    if (fit(l.affine, b, name + ".affine") != width)
      throw std::invalid_argument("'" + name + ".affine' gives other than " + std::to_string(width) + " numbers");
  }
  const char* names[4] = {"prefinal", "chain.affine", "chain.linear", "output"};
  for (int i = 0, inputs = width; i < 4; i++) inputs = fit(heads[i], inputs, names[i]);
}

namespace {

constexpr int kFrames = 96;  // that go through the layers of one rate together: their x stays in the second cache

thread_local Scratch scratch;

// Numbers of one memory, counted at first and then handed out, with a gap behind each that nobody may touch.
struct Room {
  float* memory;
  size_t used = 0;
  float* floats(size_t n) {
    float* found = memory ? memory + used : nullptr;
    used += (n + 31) / 16 * 16;
    if (found) ASAN_POISON_MEMORY_REGION(found + n, size_t(memory + used - found - n) * 4);
    return found;
  }
};

// What a layer keeps of the frames it has read: the last `kept` of x, of y, and of the tap A_1 x.
struct Kept {
  int stride, every;  // the stride or, where it is less, all frames
  int kept = 0, given = 0;  // frames kept, and done
  float *x = nullptr, *y = nullptr, *past = nullptr;
};

class Run {
 public:
  Run(const Tdnnf& net, const float* feats, ptrdiff_t stride, int frames, const float* ivectors, ptrdiff_t ivector_stride,
      const float* const* norms, float* logits, ptrdiff_t logits_stride)
      : net_(net), feats_(feats), ivectors_(ivectors), stride_(stride), ivector_stride_(ivector_stride), frames_(frames),
        norms_(norms), logits_(logits), logits_stride_(logits_stride), width_(net.input.w->rows()) {
    // As many frames in each turn as in the others.
    const int first = net.at ? 1 : net.third, rows = (frames + first - 1) / first;
    const int turns = std::max(1, (rows + kFrames / 2) / kFrames);
    turn_ = (rows + turns - 1) / turns;
    turn_ = std::min(rows, (turn_ + 7) / 8 * 8);
    Room count{nullptr};
    lay_out(count);
    Room room{reinterpret_cast<float*>(scratch.get(count.used * 4))};
    ASAN_UNPOISON_MEMORY_REGION(room.memory, count.used * 4);
    lay_out(room);
  }

  void operator()() {
    const int first = net_.at ? 1 : net_.third, rows = (frames_ + first - 1) / first;
    if (net_.front.w) front();
    int waiting = 0;  // frames that the layers of the low rate have not read yet
    for (int from = 0; from < rows; from += turn_) {
      const int n = std::min(turn_, rows - from);
      const bool last = from + n == rows;
      float* to = slow_ + ptrdiff_t(waiting) * width_;
      if (net_.at == 0) {
        input(from, n, first, to);
        waiting += n;
      } else {
        input(from, n, first, fast_);
        waiting += through(0, net_.at, fast_, n, last, to).n;
      }
      if (!last && waiting < kFrames - 8) continue;
      const Frames done = through(net_.at, int(net_.layers.size()), slow_, waiting, last, nullptr);
      heads(done.x, done.n);
      waiting = 0;
    }
  }

 private:
  struct Frames {
    float* x;
    int n;
  };

  void lay_out(Room& room) {
    const int layers = int(net_.layers.size());
    kept_ = reinterpret_cast<Kept*>(room.floats(size_t(layers) * sizeof(Kept) / 4));
    int ahead[2] = {0, 0};  // rows before the new ones, for those that layers kept
    for (int i = 0; i < layers; i++) {
      const Tdnnf::Layer& l = net_.layers[size_t(i)];
      const int b = l.linear.w->rows() / 2;
      Kept k{std::min(l.stride, i < net_.at ? frames_ : net_.outputs(frames_)), i == net_.at - 1 ? net_.third : 1};
      k.x = room.floats(size_t(k.stride) * width_);
      k.y = room.floats(size_t(k.stride) * b);
      k.past = room.floats(size_t(k.stride) * b);
      if (kept_) kept_[i] = k;
      ahead[i < net_.at ? 0 : 1] += k.stride;
    }
    const int fast = net_.at ? ahead[0] + turn_ : 0;
    const int slow = ahead[1] + std::min(net_.outputs(frames_), kFrames + std::max(turn_, (fast + 2) / net_.third + 1));
    int two = 1;
    for (const auto& l : net_.layers) two = std::max(two, l.linear.w->rows());
    const size_t most = size_t(std::max(fast, slow)), taps = size_t(2 * net_.splice + 1);
    fast_ = room.floats(size_t(fast) * width_), slow_ = room.floats(size_t(slow) * width_);
    if (room.memory) fast_ += ptrdiff_t(ahead[0]) * width_, slow_ += ptrdiff_t(ahead[1]) * width_;
    sums_ = room.floats(most * two), y_ = room.floats(most * two);
    index_ = reinterpret_cast<int32_t*>(room.floats((net_.front.w ? size_t(frames_) : most) * std::max(taps, size_t(2))));
    if (net_.front.w) front_ = room.floats(size_t(frames_) * net_.front.w->rows());
    if (net_.ivector_dim) spliced_ = room.floats(size_t(turn_) * net_.input.w->cols());
    for (int i = 0; i < 3; i++) heads_[i] = room.floats(size_t(slow) * net_.heads[i].w->rows());
  }

  void product(const Map& m, const Source& x, int count, Relu relu, float* out, ptrdiff_t stride,
               const float* const* norm = nullptr, const float* residual = nullptr, ptrdiff_t residual_stride = 0) const {
    Epilogue e;
    e.out = out, e.stride = stride, e.bias = m.bias, e.scale = m.scale, e.shift = m.shift, e.relu = relu;
    if (norm && norm[0]) e.scale = norm[0], e.shift = norm[1];
    e.residual = residual, e.residual_stride = residual_stride, e.weight = net_.bypass;
    linear(*m.w, x, count, e);
  }

  // Frames from, from + every, … with their neighbours, of a matrix of rows `width` wide.
  Source spliced(const float* x, ptrdiff_t stride, int width, int from, int n, int every) {
    const int taps = 2 * net_.splice + 1;
    for (int r = 0; r < n; r++)
      for (int tap = 0; tap < taps; tap++) {
        const int t = (from + r) * every + tap - net_.splice;
        index_[size_t(r) * taps + tap] = t < 0 || t >= frames_ ? -1 : t;
      }
    return Source{x, stride, width, taps, index_, 0, 0};
  }

  void front() {
    const int width = net_.front.w->rows();
    product(net_.front, spliced(feats_, stride_, net_.feat_dim, 0, frames_, 1), frames_, Relu::first, front_, width);
  }

  void input(int from, int n, int every, float* to) {
    const int width = net_.front.w ? net_.front.w->rows() : net_.feat_dim;
    const float* x = net_.front.w ? front_ : feats_;
    Source source = spliced(x, net_.front.w ? width : stride_, width, from, n, every);
    if (net_.ivector_dim) {
      const int taps = source.taps, all = net_.input.w->cols();
      for (int r = 0; r < n; r++) {
        float* row = spliced_ + size_t(r) * all;
        for (int tap = 0; tap < taps; tap++, row += width) {
          const int32_t t = index_[size_t(r) * taps + tap];
          if (t < 0) std::memset(row, 0, size_t(width) * 4);
          else std::memcpy(row, x + t * source.stride, size_t(width) * 4);
        }
        std::memcpy(row, ivectors_ + (from + r) * every * ivector_stride_, size_t(net_.ivector_dim) * 4);
      }
      source = Source{spliced_, all, all, 1, nullptr, 0, 0};
    }
    product(net_.input, source, n, Relu::first, to, width_, norms_);
  }

  // Layers from..to on n new frames at x, before which there is room; the last of them writes to `out` or in place.
  Frames through(int from, int to, float* x, int n, bool last, float* out) {
    for (int i = from; i < to; i++) {
      float* begin = x - ptrdiff_t(kept_[i].kept) * width_;
      float* place = out && i == to - 1 ? out : begin;
      n = layer(i, x, n, last, place);
      x = place;
    }
    return {x, n};
  }

  // One layer: what is known of y_{t+s} by now, written in place of the x that it is added to.
  int layer(int i, float* x, int n, bool last, float* out) {
    const Tdnnf::Layer& l = net_.layers[size_t(i)];
    Kept& k = kept_[i];
    const int s = k.stride, had = k.kept, have = had + n, two = l.linear.w->rows();
    const int give = last ? have : std::max(0, have - s), left = have - give;
    const int first = (k.every - k.given % k.every) % k.every, rows = first < give ? (give - first - 1) / k.every + 1 : 0;
    product(l.linear, Source{x, width_, width_, 1, nullptr, 0, 0}, n, Relu::none, sums_, two);
    Source source{sums_ + ptrdiff_t(first) * two, ptrdiff_t(k.every) * two, two, 1, nullptr, 0, 0};
    if (l.stride) {
      const int b = two / 2;
      std::memcpy(y_, k.y, size_t(had) * b * 4);
      for (int t = 0; t < n; t++) {
        float* y = y_ + size_t(had + t) * b;
        const float* now = sums_ + size_t(t) * two + b;
        const int back = t - s;  // where A_1 x of so many frames before lies, if there is such a frame
        const float* past = back >= 0 ? sums_ + size_t(back) * two : had + back >= 0 ? k.past + size_t(had + back) * b : nullptr;
        if (past)
          for (int j = 0; j < b; j++) y[j] = now[j] + past[j];
        else std::memcpy(y, now, size_t(b) * 4);
      }
      for (int r = 0; r < rows; r++) {
        const int t = first + r * k.every;
        index_[2 * r] = t, index_[2 * r + 1] = t + s < have ? t + s : -1;
      }
      source = Source{y_, b, b, 2, index_, 0, 0};
      if (!last) keep_past(k, n, two);
    }
    float* begin = x - ptrdiff_t(had) * width_;
    std::memcpy(begin, k.x, size_t(had) * width_ * 4);
    product(l.affine, source, rows, Relu::first, out, width_, norms_ ? norms_ + 2 * (i + 1) : nullptr,
            begin + ptrdiff_t(first) * width_, ptrdiff_t(k.every) * width_);
    if (!last) {
      std::memcpy(k.x, begin + ptrdiff_t(give) * width_, size_t(left) * width_ * 4);
      if (l.stride) std::memcpy(k.y, y_ + size_t(give) * (two / 2), size_t(left) * (two / 2) * 4);
    }
    k.kept = left, k.given += give;
    return rows;
  }

  // The last of A_1 x behind those that were kept.
  void keep_past(Kept& k, int n, int two) const {
    const int b = two / 2, keep = std::min(k.stride, k.kept + n), old = std::max(0, keep - n), fresh = keep - old;
    std::memmove(k.past, k.past + size_t(k.kept - old) * b, size_t(old) * b * 4);
    for (int t = 0; t < fresh; t++)
      std::memcpy(k.past + size_t(old + t) * b, sums_ + size_t(n - fresh + t) * two, size_t(b) * 4);
  }

  // What comes behind the layers, for n frames more.
  void heads(const float* x, int n) {
    int width = width_;
    for (int i = 0; i < 4; i++) {
      const int next = net_.heads[i].w->rows();
      float* to = i < 3 ? heads_[i] : logits_ + done_ * logits_stride_;
      product(net_.heads[i], Source{x, width, width, 1, nullptr, 0, 0}, n, i == 1 ? Relu::first : Relu::none, to,
              i < 3 ? next : logits_stride_);
      x = to, width = next;
    }
    done_ += n;
  }

  const Tdnnf& net_;
  const float *feats_, *ivectors_;
  ptrdiff_t stride_, ivector_stride_;
  int frames_;
  const float* const* norms_;
  float* logits_;
  ptrdiff_t logits_stride_, done_ = 0;
  int width_, turn_ = 0;
  Kept* kept_ = nullptr;
  float *fast_ = nullptr, *slow_ = nullptr;  // x of either rate, room for kept frames before
  float *sums_ = nullptr, *y_ = nullptr, *front_ = nullptr, *spliced_ = nullptr, *heads_[3] = {};
  int32_t* index_ = nullptr;
};

}  // namespace

void tdnnf(const Tdnnf& net, const float* feats, ptrdiff_t stride, int frames, const float* ivectors,
           ptrdiff_t ivector_stride, const float* const* norms, float* logits, ptrdiff_t logits_stride) {
  if (frames < 1) return;
  Run(net, feats, stride, frames, ivectors, ivector_stride, norms, logits, logits_stride)();
}

}  // namespace greenasr
