/* The two AVX2 vocabularies share what they do with elements, 16 float32 or 8 float64 at a time. */
#ifndef FASTDROP_AVX2_LANES_H
#define FASTDROP_AVX2_LANES_H

#include <immintrin.h>

#include "common.h"

/* Nothing is moved across this, and the value is in a register here. */
#define PIN(value) __asm__ volatile("" : "+x"(value) : : "memory")

typedef struct { __m256i half[2]; } lanes;
typedef lanes lanes_mask; /* Each lane is all ones or all zeros. */

#define EACH_HALF for (int i = 0; i < 2; i++)
#define AS_PS _mm256_castsi256_ps
#define AS_PD _mm256_castsi256_pd

/* Round eight float32 to eight float16 or bfloat16. */
VOCABULARY __m128i rounded_to_half(int dtype, __m256i a)
{
    if (dtype == FLOAT16)
        return _mm256_cvtps_ph(AS_PS(a), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a, 16), _mm256_set1_epi32(1));
    __m256i nearest = _mm256_add_epi32(_mm256_add_epi32(a, odd), _mm256_set1_epi32(0x7FFF));
    __m256i nan = _mm256_or_si256(_mm256_and_si256(a, _mm256_set1_epi32(BFLOAT16_SIGN)), _mm256_set1_epi32(BFLOAT16_NAN));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(AS_PS(a), AS_PS(a), _CMP_UNORD_Q));
    a = _mm256_srli_epi32(_mm256_blendv_epi8(nearest, nan, is_nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    lanes a;
    EACH_HALF {
        if (dtype == FLOAT16)
            a.half[i] = _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 16 * i))));
        else if (dtype == BFLOAT16)
            a.half[i] = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from + 16 * i))), 16);
        else
            a.half[i] = _mm256_loadu_si256((const __m256i *)(from + 32 * i));
    }
    return a;
}

VOCABULARY lanes lanes_load_wide(int dtype, const char *from)
{
    lanes a;
    if (dtype == FLOAT64)
        return lanes_load(dtype, from);
    EACH_HALF {
        __m128 four;
        if (dtype == FLOAT16)
            four = _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(from + 8 * i)));
        else if (dtype == BFLOAT16)
            four = _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(from + 8 * i))), 16));
        else
            four = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)(from + 16 * i)));
        a.half[i] = _mm256_castpd_si256(_mm256_cvtps_pd(four));
    }
    return a;
}

VOCABULARY void lanes_store(int dtype, char *to, lanes a)
{
    EACH_HALF {
        if (dtype == FLOAT16 || dtype == BFLOAT16)
            _mm_storeu_si128((__m128i *)(to + 16 * i), rounded_to_half(dtype, a.half[i]));
        else
            _mm256_storeu_si256((__m256i *)(to + 32 * i), a.half[i]);
    }
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    EACH_HALF {
        if (dtype == FLOAT16 || dtype == BFLOAT16)
            _mm_stream_si128((__m128i *)(to + 16 * i), rounded_to_half(dtype, a.half[i]));
        else
            _mm256_stream_si256((__m256i *)(to + 32 * i), a.half[i]);
    }
}

VOCABULARY lanes lanes_fill(int dtype, double value)
{
    lanes a;
    EACH_HALF a.half[i] = dtype == FLOAT64 ? _mm256_castpd_si256(_mm256_set1_pd(value))
                                           : _mm256_castps_si256(_mm256_set1_ps((float)value));
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

VOCABULARY lanes lanes_add(int dtype, lanes a, lanes b)
{
    EACH_HALF a.half[i] = dtype == FLOAT64
                              ? _mm256_castpd_si256(_mm256_add_pd(AS_PD(a.half[i]), AS_PD(b.half[i])))
                              : _mm256_castps_si256(_mm256_add_ps(AS_PS(a.half[i]), AS_PS(b.half[i])));
    return a;
}

VOCABULARY lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b)
{
    (void)dtype;
    EACH_HALF a.half[i] = _mm256_blendv_epi8(b.half[i], a.half[i], m.half[i]);
    return a;
}

/* Every lane gets all bits and compares its own. Unlike shifts and blends, these instructions do not compete with AES for
 * a port. */
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

/* Compare with zero. The instruction takes no predicate that is not a constant. */
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
