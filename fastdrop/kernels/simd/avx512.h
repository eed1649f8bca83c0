/* This is the vocabulary for AVX-512 (F, BW, DQ, VL) with VAES. Packed bits are what a mask register holds. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include <immintrin.h>

#include "common.h"

typedef __m512i reg;

enum { REG_BLOCKS = 4, REGS = 2, FIRST_PLANES = 10, CHAINED = 0 };

VOCABULARY reg reg_set(uint64_t low, uint64_t high)
{
    return _mm512_broadcast_i32x4(_mm_set_epi64x((int64_t)high, (int64_t)low));
}

VOCABULARY reg reg_count(uint64_t first, int more)
{
    return _mm512_add_epi64(reg_set(first, 0), _mm512_set_epi64(0, more + 3, 0, more + 2, 0, more + 1, 0, more));
}

VOCABULARY reg reg_xor(reg a, reg b) { return _mm512_xor_si512(a, b); }
VOCABULARY reg reg_and(reg a, reg b) { return _mm512_and_si512(a, b); }
VOCABULARY reg reg_andnot(reg a, reg b) { return _mm512_andnot_si512(b, a); }

VOCABULARY reg reg_below(reg below, reg tied, reg bits)
{
    return _mm512_ternarylogic_epi64(below, tied, bits, 0xF4); /* the truth table of below | (tied & ~bits) */
}

VOCABULARY reg reg_aes(reg state, reg key) { return _mm512_aesenc_epi128(state, key); }
VOCABULARY reg reg_aes_last(reg state, reg key) { return _mm512_aesenclast_epi128(state, key); }
VOCABULARY uint64_t reg_which(reg a) { return _mm512_test_epi64_mask(a, a); }
VOCABULARY reg reg_load(const uint64_t *words) { return _mm512_loadu_si512(words); }
VOCABULARY void reg_store(uint64_t *words, reg a) { _mm512_storeu_si512(words, a); }

#include "blocks.h"
#include "chains.h"

typedef __m512i lanes;
typedef __mmask16 lanes_mask; /* Of float64 only the low 8 bits count. */

/* Integers round to bfloat16, because the instruction for it flushes subnormal numbers to zero. */
VOCABULARY __m256i rounded_to_half(int dtype, lanes a)
{
    if (dtype == FLOAT16)
        return _mm512_cvtps_ph(_mm512_castsi512_ps(a), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(a, 16), _mm512_set1_epi32(1));
    __m512i nearest = _mm512_add_epi32(_mm512_add_epi32(a, odd), _mm512_set1_epi32(0x7FFF));
    __m512i nan = _mm512_or_si512(_mm512_and_si512(a, _mm512_set1_epi32(BFLOAT16_SIGN)), _mm512_set1_epi32(BFLOAT16_NAN));
    __mmask16 is_nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(a), _mm512_castsi512_ps(a), _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(nearest, is_nan, nan), 16));
}

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    if (dtype == FLOAT16)
        return _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)));
    if (dtype == BFLOAT16)
        return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
    return _mm512_loadu_si512(from);
}

VOCABULARY lanes lanes_load_wide(int dtype, const char *from)
{
    __m256i eight;
    if (dtype == FLOAT64)
        return lanes_load(dtype, from);
    if (dtype == FLOAT16)
        eight = _mm512_castsi512_si256(_mm512_castps_si512(
            _mm512_cvtph_ps(_mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)from)))));
    else if (dtype == BFLOAT16)
        eight = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
    else
        eight = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castpd_si512(_mm512_cvtps_pd(_mm256_castsi256_ps(eight)));
}

VOCABULARY void lanes_store(int dtype, char *to, lanes a)
{
    if (dtype == FLOAT16 || dtype == BFLOAT16)
        _mm256_storeu_si256((__m256i *)to, rounded_to_half(dtype, a));
    else
        _mm512_storeu_si512(to, a);
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    if (dtype == FLOAT16 || dtype == BFLOAT16)
        _mm256_stream_si256((__m256i *)to, rounded_to_half(dtype, a));
    else
        _mm512_stream_si512((void *)to, a);
}

VOCABULARY lanes lanes_fill(int dtype, double value)
{
    return dtype == FLOAT64 ? _mm512_castpd_si512(_mm512_set1_pd(value))
                            : _mm512_castps_si512(_mm512_set1_ps((float)value));
}

VOCABULARY lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b)
{
    /* This keeps the load of the elements apart. A load that is folded into the masked product is masked too, and Zen 5
     * then fetches nothing ahead (0.27 instead of 0.15 ns per element of a large array). The tests' emulation has no
     * such registers. */
#ifdef __AVX512F__
    __asm__("" : "+v"(a));
#endif
    return dtype == FLOAT64
               ? _mm512_castpd_si512(_mm512_maskz_mul_pd((__mmask8)m, _mm512_castsi512_pd(a), _mm512_castsi512_pd(b)))
               : _mm512_castps_si512(_mm512_maskz_mul_ps(m, _mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

VOCABULARY lanes lanes_add(int dtype, lanes a, lanes b)
{
    return dtype == FLOAT64
               ? _mm512_castpd_si512(_mm512_add_pd(_mm512_castsi512_pd(a), _mm512_castsi512_pd(b)))
               : _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

VOCABULARY lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b)
{
    return dtype == FLOAT64 ? _mm512_mask_mov_epi64(b, (__mmask8)m, a) : _mm512_mask_mov_epi32(b, m, a);
}

VOCABULARY lanes_mask mask_load(int dtype, const unsigned char *bits)
{
    uint16_t m;
    if (dtype == FLOAT64)
        return *bits;
    memcpy(&m, bits, 2);
    return m;
}

VOCABULARY void mask_store(int dtype, unsigned char *bits, lanes_mask m)
{
    memcpy(bits, &m, dtype == FLOAT64 ? 1 : 2);
}

VOCABULARY lanes_mask mask_positive(int dtype, lanes_mask m, lanes a)
{
    return dtype == FLOAT64
               ? _mm512_mask_cmp_pd_mask((__mmask8)m, _mm512_castsi512_pd(a), _mm512_setzero_pd(), _CMP_NLE_UQ)
               : _mm512_mask_cmp_ps_mask(m, _mm512_castsi512_ps(a), _mm512_setzero_ps(), _CMP_NLE_UQ);
}

VOCABULARY lanes_mask mask_nonzero(int dtype, lanes a)
{
    return dtype == FLOAT64 ? _mm512_cmp_pd_mask(_mm512_castsi512_pd(a), _mm512_setzero_pd(), _CMP_NEQ_UQ)
                            : _mm512_cmp_ps_mask(_mm512_castsi512_ps(a), _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

VOCABULARY void stream_end(void)
{
    _mm_sfence();
}

#endif
