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

/* Round to bfloat16, in the upper half of each float32. A NaN would round to something else, so it is looked for. */
VOCABULARY lanes rounded_to_bfloat16(lanes a)
{
    lanes rounded;
    EACH_HALF {
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a.half[i], 16), _mm256_set1_epi32(1));
        rounded.half[i] = _mm256_add_epi32(_mm256_add_epi32(a.half[i], _mm256_set1_epi32(0x7FFF)), odd);
    }
    if (_mm256_movemask_ps(_mm256_cmp_ps(AS_PS(a.half[0]), AS_PS(a.half[1]), _CMP_UNORD_Q)) == 0)
        return rounded;
    EACH_HALF {
        __m256i sign = _mm256_and_si256(a.half[i], _mm256_set1_epi32(BFLOAT16_SIGN));
        __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(AS_PS(a.half[i]), AS_PS(a.half[i]), _CMP_UNORD_Q));
        rounded.half[i] = _mm256_blendv_epi8(
            rounded.half[i], _mm256_or_si256(sign, _mm256_set1_epi32(BFLOAT16_NAN)), is_nan);
    }
    return rounded;
}

/* Round sixteen float32 to sixteen float16 or bfloat16. */
VOCABULARY __m256i rounded_to_half(int dtype, lanes a)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    if (dtype == FLOAT16)
        return _mm256_set_m128i(_mm256_cvtps_ph(AS_PS(a.half[1]), NEAREST), _mm256_cvtps_ph(AS_PS(a.half[0]), NEAREST));
    a = rounded_to_bfloat16(a);
    EACH_HALF a.half[i] = _mm256_srli_epi32(a.half[i], 16);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a.half[0], a.half[1]), 0xD8); /* Packing works within 128 bits. */
}

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    lanes a;
    if (dtype == BFLOAT16) {
        __m256i all = _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)from), 0xD8);
        a.half[0] = _mm256_unpacklo_epi16(_mm256_setzero_si256(), all);
        a.half[1] = _mm256_unpackhi_epi16(_mm256_setzero_si256(), all);
        return a;
    }
    EACH_HALF {
        if (dtype == FLOAT16)
            a.half[i] = _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 16 * i))));
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
    if (dtype == FLOAT16 || dtype == BFLOAT16)
        _mm256_storeu_si256((__m256i *)to, rounded_to_half(dtype, a));
    else
        EACH_HALF _mm256_storeu_si256((__m256i *)(to + 32 * i), a.half[i]);
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    if (dtype == FLOAT16 || dtype == BFLOAT16)
        _mm256_stream_si256((__m256i *)to, rounded_to_half(dtype, a));
    else
        EACH_HALF _mm256_stream_si256((__m256i *)(to + 32 * i), a.half[i]);
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
