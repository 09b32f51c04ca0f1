// AVX-512 VNNI: vpdpbusd multiplies 64 unsigned digits by 64 signed activations and adds them up in fours.
#include <immintrin.h>

#include "kernels.hpp"

#define GREENASR_ISA_NAMESPACE avx512
#include "avx512.hpp"
#include "body.hpp"

namespace greenasr {
const Kernels kAvx512{"avx512", 8, 3,
    avx512::quantize, avx512::product, avx512::log_sum, avx512::lstm_cell, avx512::depthwise,
    avx512::layer_norm, avx512::attention, avx512::read, avx512::Isa::peak, avx512::generate};
}
