// The factored time delay network over one utterance in one call; greenasr/runtime/tdnnf.py has its equations.
#pragma once
#include <vector>

#include "linear.hpp"

namespace greenasr {

// y = relu(W x + bias) * scale + shift, the vectors null where there are none.
struct Map {
  const Matrix* w = nullptr;
  const float *bias = nullptr, *scale = nullptr, *shift = nullptr;
};

struct Tdnnf {
  struct Layer {
    Map linear, affine;  // the taps of `linear` one above the other, those of `affine` side by side
    int stride;          // in frames that the layer reads; 0: one tap
  };
  int feat_dim = 0, ivector_dim = 0, splice = 0;
  int third = 1;  // of so many frames one is computed
  int at = 0;     // layers before the rate drops; the last of them computes the drop
  float bypass = 0;
  Map front, input;  // `front` without a matrix where there is none
  std::vector<Layer> layers;
  Map heads[4];  // prefinal, chain.affine, chain.linear, output

  void check() const;  // throws std::invalid_argument for matrices that do not fit each other
  int outputs(int frames) const { return (frames + third - 1) / third; }
};

// Features (frames, F) and i-vectors (frames, I), rows `stride` numbers apart, to logits (outputs(frames), C).
// `norms` holds scale and shift of the input layer and then of every layer, null for the network's own; or is null.
void tdnnf(const Tdnnf& net, const float* feats, ptrdiff_t stride, int frames, const float* ivectors,
           ptrdiff_t ivector_stride, const float* const* norms, float* logits, ptrdiff_t logits_stride);

}  // namespace greenasr
