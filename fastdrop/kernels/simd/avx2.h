/* This is the vocabulary for AVX2, with AES-NI on one block at a time. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include "avx2_lanes.h"

typedef __m128i reg;

enum { REG_BLOCKS = 1, REGS = 4, FIRST_PLANES = 9, CHAINED = 1 };

VOCABULARY reg reg_set(uint64_t low, uint64_t high) { return _mm_set_epi64x((int64_t)high, (int64_t)low); }
VOCABULARY reg reg_count(uint64_t first, int more) { return reg_set(first + (uint64_t)more, 0); }
VOCABULARY reg reg_xor(reg a, reg b) { return _mm_xor_si128(a, b); }
VOCABULARY reg reg_and(reg a, reg b) { return _mm_and_si128(a, b); }
VOCABULARY reg reg_andnot(reg a, reg b) { return _mm_andnot_si128(b, a); }

VOCABULARY reg reg_below(reg below, reg tied, reg bits)
{
    return _mm_or_si128(below, _mm_andnot_si128(bits, tied));
}

VOCABULARY reg reg_aes(reg state, reg key) { return _mm_aesenc_si128(state, key); }
VOCABULARY reg reg_aes_last(reg state, reg key) { return _mm_aesenclast_si128(state, key); }

VOCABULARY uint64_t reg_which(reg a)
{
    __m128i is_zero = _mm_cmpeq_epi64(a, _mm_setzero_si128());
    return 3 ^ (unsigned)_mm_movemask_pd(_mm_castsi128_pd(is_zero));
}

VOCABULARY reg reg_load(const uint64_t *words) { return _mm_loadu_si128((const __m128i *)words); }
VOCABULARY void reg_store(uint64_t *words, reg a) { _mm_storeu_si128((__m128i *)words, a); }

#include "blocks.h"
#include "chains.h"

#endif
