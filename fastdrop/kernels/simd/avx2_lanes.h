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

VOCABULARY lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b)
{
    EACH_HALF {
        __m256i product = dtype == FLOAT64
                              ? _mm256_castpd_si256(_mm256_mul_pd(AS_PD(a.half[i]), AS_PD(b.half[i])))
                              : _mm256_castps_si256(_mm256_mul_ps(AS_PS(a.half[i]), AS_PS(b.half[i])));
        a.half[i] = _mm256_and_si256(m.half[i], product);
    }
    return a;
}

/* Every lane sees all bits, and keeps its own. These instructions, unlike shifts and blends, do not
 * compete with AES for a port. */
VOCABULARY lanes_mask mask_load(int dtype, const unsigned char *bits)
{
    lanes_mask m;
    if (dtype == FLOAT64) {
        __m256i all = _mm256_set1_epi8((char)*bits);
        EACH_HALF {
            __m256i own = i ? _mm256_setr_epi64x(16, 32, 64, 128) : _mm256_setr_epi64x(1, 2, 4, 8);
            m.half[i] = _mm256_cmpeq_epi64(_mm256_and_si256(all, own), own);
        }
    } else {
        __m256i all;
        uint16_t word;
        memcpy(&word, bits, 2);
        all = _mm256_set1_epi16((short)word);
        EACH_HALF {
            __m256i own = i ? _mm256_setr_epi32(1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15)
                            : _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            m.half[i] = _mm256_cmpeq_epi32(_mm256_and_si256(all, own), own);
        }
    }
    return m;
}

VOCABULARY void mask_store(int dtype, unsigned char *bits, lanes_mask m)
{
    if (dtype == FLOAT64) {
        *bits = (unsigned char)(_mm256_movemask_pd(AS_PD(m.half[0])) | _mm256_movemask_pd(AS_PD(m.half[1])) << 4);
    } else {
        bits[0] = (unsigned char)_mm256_movemask_ps(AS_PS(m.half[0]));
        bits[1] = (unsigned char)_mm256_movemask_ps(AS_PS(m.half[1]));
    }
}

/* A comparison with zero: its predicate has to be a constant. */
#define COMPARED(dtype, a, predicate)                                                              \
    (dtype == FLOAT64 ? _mm256_castpd_si256(_mm256_cmp_pd(AS_PD(a), _mm256_setzero_pd(), predicate)) \
                      : _mm256_castps_si256(_mm256_cmp_ps(AS_PS(a), _mm256_setzero_ps(), predicate)))

VOCABULARY lanes_mask mask_positive(int dtype, lanes_mask m, lanes a)
{
    EACH_HALF m.half[i] = _mm256_and_si256(m.half[i], COMPARED(dtype, a.half[i], _CMP_NLE_UQ));
    return m;
}

VOCABULARY lanes_mask mask_nonzero(int dtype, lanes a)
{
    EACH_HALF a.half[i] = COMPARED(dtype, a.half[i], _CMP_NEQ_UQ);
    return a;
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
