/* The intrinsics of simd/avx512.h and of VAES for a CPU with AVX2, AES-NI and F16C, in plain loops: included
 * before those headers, in place of gcc's. Only the comparisons that are asked for are there. */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EMULATED static inline __attribute__((always_inline, unused))

typedef uint64_t u64x8 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

typedef union { __m512i whole; __m512 floats; __m256i half[2]; __m256 half_floats[2]; __m128i quarter[4]; } pieces;

/* --- bits and integers --- */

#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castpd_si512(a) ((__m512i)(a))
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castsi512_pd(a) ((__m512d)(a))
#define _mm512_xor_si512(a, b) ((__m512i)((u64x8)(a) ^ (u64x8)(b)))
#define _mm512_and_si512(a, b) ((__m512i)((u64x8)(a) & (u64x8)(b)))
#define _mm512_or_si512(a, b) ((__m512i)((u64x8)(a) | (u64x8)(b)))
#define _mm512_andnot_si512(a, b) ((__m512i)(~(u64x8)(a) & (u64x8)(b)))
#define _mm512_add_epi64(a, b) ((__m512i)((u64x8)(a) + (u64x8)(b)))
#define _mm512_add_epi32(a, b) ((__m512i)((u32x16)(a) + (u32x16)(b)))
#define _mm512_srli_epi32(a, n) ((__m512i)((u32x16)(a) >> (n)))
#define _mm512_slli_epi32(a, n) ((__m512i)((u32x16)(a) << (n)))
#define _mm512_set1_epi32(value) ((__m512i)((u32x16){0} + (uint32_t)(value)))
#define _mm512_set_epi64(h, g, f, e, d, c, b, a) ((__m512i)(u64x8){a, b, c, d, e, f, g, h})
#define _mm512_cvtepi32_epi16(a) ((__m256i)__builtin_convertvector((u32x16)(a), u16x16))
#define _mm512_cvtepu16_epi32(a) ((__m512i)__builtin_convertvector((u16x16)(a), u32x16))
#define _mm512_broadcast_i32x4(a) emulated_broadcast(a)
#define _mm512_ternarylogic_epi64(a, b, c, table) emulated_ternary((u64x8)(a), (u64x8)(b), (u64x8)(c), table)
#define _mm512_test_epi64_mask(a, b) emulated_test((u64x8)(a), (u64x8)(b))
#define _mm512_mask_mov_epi32(otherwise, m, a) emulated_mov32((u32x16)(otherwise), m, (u32x16)(a))
#define _mm512_mask_mov_epi64(otherwise, m, a) emulated_mov64((u64x8)(otherwise), m, (u64x8)(a))

EMULATED __m512i emulated_broadcast(__m128i a)
{
    pieces all;
    for (int i = 0; i < 4; i++) all.quarter[i] = a;
    return all.whole;
}

EMULATED __m512i emulated_ternary(u64x8 a, u64x8 b, u64x8 c, int table)
{
    u64x8 found = {0};
    for (int row = 0; row < 8; row++)
        if (table >> row & 1) found |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return (__m512i)found;
}

EMULATED __mmask8 emulated_test(u64x8 a, u64x8 b)
{
    unsigned mask = 0;
    for (int i = 0; i < 8; i++) mask |= (unsigned)((a[i] & b[i]) != 0) << i;
    return (__mmask8)mask;
}

EMULATED __m512i emulated_mov32(u32x16 a, __mmask16 m, u32x16 b)
{
    for (int i = 0; i < 16; i++) if (m >> i & 1) a[i] = b[i];
    return (__m512i)a;
}

EMULATED __m512i emulated_mov64(u64x8 a, __mmask8 m, u64x8 b)
{
    for (int i = 0; i < 8; i++) if (m >> i & 1) a[i] = b[i];
    return (__m512i)a;
}

/* --- memory: an address that is not aligned faults, as it would --- */

#define _mm512_loadu_si512(from) emulated_load(from)
#define _mm512_storeu_si512(to, a) emulated_store(to, a)
#define _mm512_stream_si512(to, a) emulated_stream(to, a)
#define _mm512_castsi512_si256(a) emulated_low(a)

EMULATED __m512i emulated_load(const void *from)
{
    __m512i a;
    memcpy(&a, from, sizeof a);
    return a;
}

EMULATED void emulated_store(void *to, __m512i a)
{
    memcpy(to, &a, sizeof a);
}

EMULATED __m256i emulated_low(__m512i a)
{
    __m256i half;
    memcpy(&half, &a, sizeof half);
    return half;
}

EMULATED void emulated_stream(void *to, __m512i a)
{
    if ((uintptr_t)to % sizeof a) abort();
    emulated_store(to, a);
}

/* --- floating point --- */

#define _mm512_setzero_ps() ((__m512){0})
#define _mm512_setzero_pd() ((__m512d){0})
#define _mm512_add_ps(a, b) ((a) + (b))
#define _mm512_add_pd(a, b) ((a) + (b))
#define _mm512_set1_ps(value) emulated_fill(value)
#define _mm512_set1_pd(value) emulated_fill_double(value)
#define _mm512_maskz_mul_ps(m, a, b) emulated_mul(m, a, b)
#define _mm512_maskz_mul_pd(m, a, b) emulated_mul_double(m, a, b)
#define _mm512_mask_cmp_ps_mask(m, a, b, how) ((__mmask16)((m) & emulated_cmp(a, b, how)))
#define _mm512_mask_cmp_pd_mask(m, a, b, how) ((__mmask8)((m) & emulated_cmp_double(a, b, how)))
#define _mm512_cmp_ps_mask(a, b, how) emulated_cmp(a, b, how)
#define _mm512_cmp_pd_mask(a, b, how) emulated_cmp_double(a, b, how)
#define _mm512_cvtps_ph(a, rounding) emulated_to_half(a)
#define _mm512_cvtph_ps(a) emulated_from_half(a)
#define _mm512_cvtps_pd(a) __builtin_convertvector(a, __m512d)

#define EMULATED_COMPARISON(a, b, how) \
    ((how) == _CMP_UNORD_Q ? (a) != (a) || (b) != (b) : (how) == _CMP_NLE_UQ ? !((a) <= (b)) : (a) != (b))

EMULATED __m512 emulated_fill(float value)
{
    __m512 a;
    for (int i = 0; i < 16; i++) a[i] = value;
    return a;
}

EMULATED __m512d emulated_fill_double(double value)
{
    __m512d a;
    for (int i = 0; i < 8; i++) a[i] = value;
    return a;
}

EMULATED __m512 emulated_mul(__mmask16 m, __m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++) a[i] = m >> i & 1 ? a[i] * b[i] : 0;
    return a;
}

EMULATED __m512d emulated_mul_double(__mmask8 m, __m512d a, __m512d b)
{
    for (int i = 0; i < 8; i++) a[i] = m >> i & 1 ? a[i] * b[i] : 0;
    return a;
}

EMULATED __mmask16 emulated_cmp(__m512 a, __m512 b, int how)
{
    unsigned mask = 0;
    for (int i = 0; i < 16; i++) mask |= (unsigned)EMULATED_COMPARISON(a[i], b[i], how) << i;
    return (__mmask16)mask;
}

EMULATED __mmask8 emulated_cmp_double(__m512d a, __m512d b, int how)
{
    unsigned mask = 0;
    for (int i = 0; i < 8; i++) mask |= (unsigned)EMULATED_COMPARISON(a[i], b[i], how) << i;
    return (__mmask8)mask;
}

EMULATED __m256i emulated_to_half(__m512 a)
{
    pieces from = {.floats = a};
    __m128i low = _mm256_cvtps_ph(from.half_floats[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m128i high = _mm256_cvtps_ph(from.half_floats[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_set_m128i(high, low);
}

EMULATED __m512 emulated_from_half(__m256i a)
{
    pieces to;
    to.half_floats[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    to.half_floats[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    return to.floats;
}

/* --- VAES --- */

#define _mm512_aesenc_epi128(a, key) emulated_aes(a, key, 0)
#define _mm512_aesenclast_epi128(a, key) emulated_aes(a, key, 1)
#define _mm256_aesenc_epi128(a, key) emulated_aes_half(a, key, 0)
#define _mm256_aesenclast_epi128(a, key) emulated_aes_half(a, key, 1)

EMULATED __m128i emulated_round(__m128i a, __m128i key, int last)
{
    return last ? _mm_aesenclast_si128(a, key) : _mm_aesenc_si128(a, key);
}

EMULATED __m512i emulated_aes(__m512i a, __m512i key, int last)
{
    pieces state = {.whole = a}, keys = {.whole = key};
    for (int i = 0; i < 4; i++) state.quarter[i] = emulated_round(state.quarter[i], keys.quarter[i], last);
    return state.whole;
}

EMULATED __m256i emulated_aes_half(__m256i a, __m256i key, int last)
{
    return _mm256_set_m128i(
        emulated_round(_mm256_extracti128_si256(a, 1), _mm256_extracti128_si256(key, 1), last),
        emulated_round(_mm256_castsi256_si128(a), _mm256_castsi256_si128(key), last));
}
