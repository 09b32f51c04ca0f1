// AVX2 with AVX-VNNI: vpdpbusd on 32 bytes.
#define GREENASR_ISA_NAMESPACE avx2vnni
#define GREENASR_VNNI
#include "avx2.hpp"
#include "body.hpp"

namespace greenasr {
const Kernels kAvx2Vnni{"avx2vnni", 4, 1,
    avx2vnni::quantize, avx2vnni::product, avx2vnni::log_sum, avx2vnni::lstm_cell, avx2vnni::depthwise,
    avx2vnni::layer_norm, avx2vnni::attention, avx2vnni::read, avx2vnni::Isa::peak, avx2vnni::generate};
}
