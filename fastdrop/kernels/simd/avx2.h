/* This is the vocabulary for AVX2, with AES-NI on one block at a time. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include "avx2_lanes.h"

enum { GROUP_SIZE = 8, FIRST_PLANES = 9 };

typedef struct { __m128i part[8]; } blocks; /* A part is 1 block. */

#define EACH_PART for (int i = 0; i < 8; i++)

VOCABULARY blocks blocks_set(uint64_t low, uint64_t high)
{
    blocks a;
    EACH_PART a.part[i] = _mm_set_epi64x((int64_t)high, (int64_t)low);
    return a;
}

VOCABULARY blocks blocks_count(uint64_t first)
{
    blocks a;
    EACH_PART a.part[i] = _mm_set_epi64x(0, (int64_t)(first + (uint64_t)i));
    return a;
}

VOCABULARY blocks blocks_xor(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm_xor_si128(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_and(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm_and_si128(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_andnot(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm_andnot_si128(b.part[i], a.part[i]);
    return a;
}

VOCABULARY blocks blocks_below(blocks below, blocks tied, blocks bits)
{
    EACH_PART below.part[i] = _mm_or_si128(below.part[i], _mm_andnot_si128(bits.part[i], tied.part[i]));
    return below;
}

VOCABULARY blocks blocks_aes(blocks state, blocks key)
{
    EACH_PART state.part[i] = _mm_aesenc_si128(state.part[i], key.part[i]);
    return state;
}

VOCABULARY blocks blocks_aes_last(blocks state, blocks key)
{
    EACH_PART state.part[i] = _mm_aesenclast_si128(state.part[i], key.part[i]);
    return state;
}

VOCABULARY uint64_t blocks_which(blocks a)
{
    unsigned zero = 0;
    EACH_PART {
        __m128i is_zero = _mm_cmpeq_epi64(a.part[i], _mm_setzero_si128());
        zero |= (unsigned)_mm_movemask_pd(_mm_castsi128_pd(is_zero)) << 2 * i;
    }
    return zero ^ 0xFFFF;
}

VOCABULARY blocks blocks_load(const uint64_t *words)
{
    blocks a;
    EACH_PART a.part[i] = _mm_loadu_si128((const __m128i *)(words + 2 * i));
    return a;
}

VOCABULARY void blocks_store(uint64_t *words, blocks a)
{
    EACH_PART _mm_storeu_si128((__m128i *)(words + 2 * i), a.part[i]);
}

#undef EACH_PART

#endif
