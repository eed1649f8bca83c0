/* This is the vocabulary for AArch64 with the AES instructions. */
#ifndef FASTDROP_SIMD_H
#define FASTDROP_SIMD_H

#include <arm_neon.h>

#include "common.h"

typedef uint8x16_t reg;

enum { REG_BLOCKS = 1, REGS = 8, FIRST_PLANES = 9, CHAINED = 0 };

VOCABULARY reg reg_set(uint64_t low, uint64_t high)
{
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)));
}

VOCABULARY reg reg_count(uint64_t first, int more) { return reg_set(first + (uint64_t)more, 0); }
VOCABULARY reg reg_xor(reg a, reg b) { return veorq_u8(a, b); }
VOCABULARY reg reg_and(reg a, reg b) { return vandq_u8(a, b); }
VOCABULARY reg reg_andnot(reg a, reg b) { return vbicq_u8(a, b); }
VOCABULARY reg reg_below(reg below, reg tied, reg bits) { return vorrq_u8(below, vbicq_u8(tied, bits)); }

/* AESE adds its key before a round, and the vocabulary adds it after the round. So AESE gets a zero key. */
VOCABULARY reg reg_aes(reg state, reg key)
{
    return veorq_u8(vaesmcq_u8(vaeseq_u8(state, vdupq_n_u8(0))), key);
}

VOCABULARY reg reg_aes_last(reg state, reg key) { return veorq_u8(vaeseq_u8(state, vdupq_n_u8(0)), key); }

VOCABULARY uint64_t reg_which(reg a)
{
    uint64x2_t words = vreinterpretq_u64_u8(a);
    return (uint64_t)(vgetq_lane_u64(words, 0) != 0) | (uint64_t)(vgetq_lane_u64(words, 1) != 0) << 1;
}

VOCABULARY reg reg_load(const uint64_t *words) { return vld1q_u8((const uint8_t *)words); }
VOCABULARY void reg_store(uint64_t *words, reg a) { vst1q_u8((uint8_t *)words, a); }

#include "blocks.h"
#include "chains.h"

typedef struct { uint32x4_t quarter[4]; } lanes;
typedef lanes lanes_mask; /* Each lane is all ones or all zeros. */

#define EACH_QUARTER for (int i = 0; i < 4; i++)
#define AS_F32 vreinterpretq_f32_u32
#define AS_F64 vreinterpretq_f64_u32
#define FROM_F32 vreinterpretq_u32_f32
#define FROM_F64 vreinterpretq_u32_f64
#define FROM_U64 vreinterpretq_u32_u64

/* Round four float32 to four float16 or bfloat16. */
VOCABULARY uint16x4_t rounded_to_half(int dtype, uint32x4_t a)
{
    if (dtype == FLOAT16)
        return vreinterpret_u16_f16(vcvt_f16_f32(AS_F32(a)));
    uint32x4_t odd = vandq_u32(vshrq_n_u32(a, 16), vdupq_n_u32(1));
    uint32x4_t nearest = vaddq_u32(vaddq_u32(a, odd), vdupq_n_u32(0x7FFF));
    uint32x4_t nan = vorrq_u32(vandq_u32(a, vdupq_n_u32((uint32_t)BFLOAT16_SIGN)), vdupq_n_u32(BFLOAT16_NAN));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(AS_F32(a), AS_F32(a)), nearest, nan), 16);
}

VOCABULARY lanes lanes_load(int dtype, const char *from)
{
    lanes a;
    EACH_QUARTER {
        uint16x4_t half = vreinterpret_u16_u8(vdup_n_u8(0));
        if (dtype == FLOAT16 || dtype == BFLOAT16)
            half = vreinterpret_u16_u8(vld1_u8((const uint8_t *)from + 8 * i));
        if (dtype == FLOAT16)
            a.quarter[i] = FROM_F32(vcvt_f32_f16(vreinterpret_f16_u16(half)));
        else if (dtype == BFLOAT16)
            a.quarter[i] = vshll_n_u16(half, 16);
        else
            a.quarter[i] = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)from + 16 * i));
    }
    return a;
}

VOCABULARY lanes lanes_load_wide(int dtype, const char *from)
{
    lanes a;
    char padded[64] = {0};
    if (dtype == FLOAT64)
        return lanes_load(dtype, from);
    memcpy(padded, from, dtype == FLOAT32 ? 32 : 16);
    lanes narrow = lanes_load(dtype, padded);
    EACH_QUARTER {
        float32x4_t four = vreinterpretq_f32_u32(narrow.quarter[i / 2]);
        a.quarter[i] = vreinterpretq_u32_f64(vcvt_f64_f32(i % 2 ? vget_high_f32(four) : vget_low_f32(four)));
    }
    return a;
}

VOCABULARY void lanes_store(int dtype, char *to, lanes a)
{
    EACH_QUARTER {
        if (dtype == FLOAT16 || dtype == BFLOAT16)
            vst1_u8((uint8_t *)to + 8 * i, vreinterpret_u8_u16(rounded_to_half(dtype, a.quarter[i])));
        else
            vst1q_u8((uint8_t *)to + 16 * i, vreinterpretq_u8_u32(a.quarter[i]));
    }
}

VOCABULARY void lanes_stream(int dtype, char *to, lanes a)
{
    lanes_store(dtype, to, a); /* There is no intrinsic for a store past the cache. */
}

VOCABULARY lanes lanes_fill(int dtype, double value)
{
    lanes a;
    EACH_QUARTER a.quarter[i] = dtype == FLOAT64 ? FROM_F64(vdupq_n_f64(value)) : FROM_F32(vdupq_n_f32((float)value));
    return a;
}

VOCABULARY lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b)
{
    EACH_QUARTER {
        uint32x4_t product = dtype == FLOAT64 ? FROM_F64(vmulq_f64(AS_F64(a.quarter[i]), AS_F64(b.quarter[i])))
                                              : FROM_F32(vmulq_f32(AS_F32(a.quarter[i]), AS_F32(b.quarter[i])));
        a.quarter[i] = vandq_u32(m.quarter[i], product);
    }
    return a;
}

VOCABULARY lanes lanes_add(int dtype, lanes a, lanes b)
{
    EACH_QUARTER a.quarter[i] = dtype == FLOAT64 ? FROM_F64(vaddq_f64(AS_F64(a.quarter[i]), AS_F64(b.quarter[i])))
                                                 : FROM_F32(vaddq_f32(AS_F32(a.quarter[i]), AS_F32(b.quarter[i])));
    return a;
}

VOCABULARY lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b)
{
    (void)dtype;
    EACH_QUARTER a.quarter[i] = vbslq_u32(m.quarter[i], a.quarter[i], b.quarter[i]);
    return a;
}

/* Return, for each lane of quarter `i`, the bit that packed bits have for it. */
VOCABULARY uint32x4_t own_bits(int dtype, int i)
{
    static const uint32_t four[4] = {1, 2, 4, 8};
    static const uint64_t two[2] = {1, 2};
    return dtype == FLOAT64 ? FROM_U64(vshlq_u64(vld1q_u64(two), vdupq_n_s64(2 * i)))
                            : vshlq_u32(vld1q_u32(four), vdupq_n_s32(4 * i));
}

VOCABULARY lanes_mask mask_load(int dtype, const unsigned char *bits)
{
    lanes_mask m;
    uint32_t word = bits[0];
    if (dtype != FLOAT64)
        word |= (uint32_t)bits[1] << 8;
    EACH_QUARTER m.quarter[i] =
        dtype == FLOAT64 ? FROM_U64(vtstq_u64(vdupq_n_u64(word), vreinterpretq_u64_u32(own_bits(dtype, i))))
                         : vtstq_u32(vdupq_n_u32(word), own_bits(dtype, i));
    return m;
}

VOCABULARY void mask_store(int dtype, unsigned char *bits, lanes_mask m)
{
    uint32x4_t own = vandq_u32(m.quarter[0], own_bits(dtype, 0));
    uint32_t word;
    for (int i = 1; i < 4; i++) own = vorrq_u32(own, vandq_u32(m.quarter[i], own_bits(dtype, i)));
    word = vaddvq_u32(own);
    bits[0] = (unsigned char)word;
    if (dtype != FLOAT64)
        bits[1] = (unsigned char)(word >> 8);
}

VOCABULARY lanes_mask mask_positive(int dtype, lanes_mask m, lanes a)
{
    EACH_QUARTER m.quarter[i] =
        vbicq_u32(m.quarter[i], dtype == FLOAT64 ? FROM_U64(vclezq_f64(AS_F64(a.quarter[i])))
                                                 : vclezq_f32(AS_F32(a.quarter[i])));
    return m;
}

VOCABULARY lanes_mask mask_nonzero(int dtype, lanes a)
{
    EACH_QUARTER a.quarter[i] =
        vmvnq_u32(dtype == FLOAT64 ? FROM_U64(vceqzq_f64(AS_F64(a.quarter[i]))) : vceqzq_f32(AS_F32(a.quarter[i])));
    return a;
}

VOCABULARY void stream_end(void)
{
}

#undef EACH_QUARTER
#undef AS_F32
#undef AS_F64
#undef FROM_F32
#undef FROM_F64
#undef FROM_U64

#endif
