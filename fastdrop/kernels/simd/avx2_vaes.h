/* This is the vocabulary for AVX2, with VAES on two blocks at a time. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include "avx2_lanes.h"

enum { GROUP_SIZE = 8, FIRST_PLANES = 10 };

typedef struct { __m256i part[4]; } blocks; /* A part is 2 blocks. */

#define EACH_PART for (int i = 0; i < 4; i++)

VOCABULARY blocks blocks_set(uint64_t low, uint64_t high)
{
    blocks a;
    EACH_PART a.part[i] = _mm256_broadcastsi128_si256(_mm_set_epi64x((int64_t)high, (int64_t)low));
    return a;
}

VOCABULARY blocks blocks_count(uint64_t first)
{
    blocks a = blocks_set(first, 0);
    EACH_PART a.part[i] = _mm256_add_epi64(a.part[i], _mm256_set_epi64x(0, 2 * i + 1, 0, 2 * i));
    return a;
}

VOCABULARY blocks blocks_xor(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm256_xor_si256(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_and(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm256_and_si256(a.part[i], b.part[i]);
    return a;
}

VOCABULARY blocks blocks_andnot(blocks a, blocks b)
{
    EACH_PART a.part[i] = _mm256_andnot_si256(b.part[i], a.part[i]);
    return a;
}

VOCABULARY blocks blocks_below(blocks below, blocks tied, blocks bits)
{
    EACH_PART below.part[i] = _mm256_or_si256(below.part[i], _mm256_andnot_si256(bits.part[i], tied.part[i]));
    return below;
}

VOCABULARY blocks blocks_aes(blocks state, blocks key)
{
    EACH_PART state.part[i] = _mm256_aesenc_epi128(state.part[i], key.part[i]);
    return state;
}

VOCABULARY blocks blocks_aes_last(blocks state, blocks key)
{
    EACH_PART state.part[i] = _mm256_aesenclast_epi128(state.part[i], key.part[i]);
    return state;
}

VOCABULARY uint64_t blocks_which(blocks a)
{
    unsigned zero = 0;
    EACH_PART {
        __m256i is_zero = _mm256_cmpeq_epi64(a.part[i], _mm256_setzero_si256());
        zero |= (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(is_zero)) << 4 * i;
    }
    return zero ^ 0xFFFF;
}

VOCABULARY blocks blocks_load(const uint64_t *words)
{
    blocks a;
    EACH_PART a.part[i] = _mm256_loadu_si256((const __m256i *)(words + 4 * i));
    return a;
}

VOCABULARY void blocks_store(uint64_t *words, blocks a)
{
    EACH_PART _mm256_storeu_si256((__m256i *)(words + 4 * i), a.part[i]);
}

#undef EACH_PART

#endif
