/* What the two AVX2 vocabularies share: elements, 16 float32 or 8 float64 at a time. */
#ifndef FASTDROP_AVX2_LANES_H
#define FASTDROP_AVX2_LANES_H

#include <immintrin.h>

#include "common.h"

typedef struct { __m256i half[2]; } lanes;
typedef lanes lanes_mask; /* all ones or all zeros a lane */

#define EACH_HALF for (int i = 0; i < 2; i++)
#define AS_PS _mm256_castsi256_ps
#define AS_PD _mm256_castsi256_pd

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    lanes a;
    (void)dtype;
    EACH_HALF a.half[i] = _mm256_loadu_si256((const __m256i *)(from + 32 * i));
    return a;
}

VOCABULARY void lanes_store(int dtype, char *to, lanes a)
{
    (void)dtype;
    EACH_HALF _mm256_storeu_si256((__m256i *)(to + 32 * i), a.half[i]);
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    (void)dtype;
    EACH_HALF _mm256_stream_si256((__m256i *)(to + 32 * i), a.half[i]);
}

VOCABULARY lanes lanes_fill(int dtype, double value)
{
    lanes a;
    EACH_HALF a.half[i] = dtype == FLOAT32 ? _mm256_castps_si256(_mm256_set1_ps((float)value))
                                           : _mm256_castpd_si256(_mm256_set1_pd(value));
    return a;
}

VOCABULARY lanes lanes_mul(int dtype, lanes a, lanes b)
{
    EACH_HALF a.half[i] =
        dtype == FLOAT32 ? _mm256_castps_si256(_mm256_mul_ps(AS_PS(a.half[i]), AS_PS(b.half[i])))
                         : _mm256_castpd_si256(_mm256_mul_pd(AS_PD(a.half[i]), AS_PD(b.half[i])));
    return a;
}

/* A comparison with zero: its predicate has to be a constant. */
#define COMPARED(dtype, a, predicate)                                                                  \
    (dtype == FLOAT32                                                                                  \
         ? _mm256_castps_si256(_mm256_cmp_ps(AS_PS(a), _mm256_setzero_ps(), predicate))                \
         : _mm256_castpd_si256(_mm256_cmp_pd(AS_PD(a), _mm256_setzero_pd(), predicate)))

VOCABULARY lanes_mask lanes_positive(int dtype, lanes a)
{
    EACH_HALF a.half[i] = COMPARED(dtype, a.half[i], _CMP_NLE_UQ);
    return a;
}

VOCABULARY lanes_mask lanes_nonzero(int dtype, lanes a)
{
    EACH_HALF a.half[i] = COMPARED(dtype, a.half[i], _CMP_NEQ_UQ);
    return a;
}

VOCABULARY lanes_mask mask_and(lanes_mask a, lanes_mask b)
{
    EACH_HALF a.half[i] = _mm256_and_si256(a.half[i], b.half[i]);
    return a;
}

VOCABULARY lanes lanes_select(int dtype, lanes_mask m, lanes a)
{
    (void)dtype;
    return mask_and(m, a);
}

/* Every lane sees all bits, and keeps the one of its own. */
VOCABULARY lanes_mask mask_expand(int dtype, uint32_t bits)
{
    lanes_mask m;
    EACH_HALF {
        if (dtype == FLOAT32) {
            __m256i own = _mm256_slli_epi32(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), 8 * i);
            m.half[i] = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), own), own);
        } else {
            __m256i own = _mm256_slli_epi64(_mm256_setr_epi64x(1, 2, 4, 8), 4 * i);
            m.half[i] = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((int)bits), own), own);
        }
    }
    return m;
}

VOCABULARY uint32_t mask_pack(int dtype, lanes_mask m)
{
    if (dtype == FLOAT32)
        return (uint32_t)_mm256_movemask_ps(AS_PS(m.half[0])) |
               (uint32_t)_mm256_movemask_ps(AS_PS(m.half[1])) << 8;
    return (uint32_t)_mm256_movemask_pd(AS_PD(m.half[0])) |
           (uint32_t)_mm256_movemask_pd(AS_PD(m.half[1])) << 4;
}

VOCABULARY void prefetch(const char *address)
{
    _mm_prefetch(address, _MM_HINT_T0);
}

VOCABULARY void stream_end(void)
{
    _mm_sfence();
}

#undef EACH_HALF
#undef AS_PS
#undef AS_PD
#undef COMPARED

#endif
