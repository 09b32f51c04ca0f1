// AVX2 without VNNI: products in 16 bits, then added in pairs.
#define GREENASR_ISA_NAMESPACE avx2
#include "avx2.hpp"
#include "body.hpp"

namespace greenasr {
const Kernels kAvx2{"avx2", 4, 1,
    avx2::quantize, avx2::product, avx2::log_sum, avx2::lstm_cell, avx2::depthwise,
    avx2::layer_norm, avx2::attention, avx2::read, avx2::Isa::peak, avx2::generate};
}
