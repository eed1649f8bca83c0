/* This is the vocabulary for AVX2, with VAES on two blocks at a time. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include "avx2_lanes.h"

typedef __m256i reg;

enum { REG_BLOCKS = 2, REGS = 2, FIRST_PLANES = 10, CHAINED = 1 };

VOCABULARY reg reg_set(uint64_t low, uint64_t high)
{
    return _mm256_broadcastsi128_si256(_mm_set_epi64x((int64_t)high, (int64_t)low));
}

VOCABULARY reg reg_count(uint64_t first, int more)
{
    return _mm256_add_epi64(reg_set(first, 0), _mm256_set_epi64x(0, more + 1, 0, more));
}

VOCABULARY reg reg_xor(reg a, reg b) { return _mm256_xor_si256(a, b); }
VOCABULARY reg reg_and(reg a, reg b) { return _mm256_and_si256(a, b); }
VOCABULARY reg reg_andnot(reg a, reg b) { return _mm256_andnot_si256(b, a); }

VOCABULARY reg reg_below(reg below, reg tied, reg bits)
{
    return _mm256_or_si256(below, _mm256_andnot_si256(bits, tied));
}

VOCABULARY reg reg_aes(reg state, reg key) { return _mm256_aesenc_epi128(state, key); }
VOCABULARY reg reg_aes_last(reg state, reg key) { return _mm256_aesenclast_epi128(state, key); }

VOCABULARY uint64_t reg_which(reg a)
{
    __m256i is_zero = _mm256_cmpeq_epi64(a, _mm256_setzero_si256());
    return 0xF ^ (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(is_zero));
}

VOCABULARY reg reg_load(const uint64_t *words) { return _mm256_loadu_si256((const __m256i *)words); }
VOCABULARY void reg_store(uint64_t *words, reg a) { _mm256_storeu_si256((__m256i *)words, a); }

#include "blocks.h"
#include "chains.h"

#endif
