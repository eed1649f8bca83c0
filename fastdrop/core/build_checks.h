/* setup.py compiles this before every file of the package (-include), so that what cannot keep the promises of the
 * reference does not build. It also removes such flags from CFLAGS and LDFLAGS; this header finds those that come another
 * way. It includes nothing, because Python.h has to be the first header. */
#ifndef FASTDROP_BUILD_CHECKS_H
#define FASTDROP_BUILD_CHECKS_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__) || \
    (defined(__GCC_IEC_559) && __GCC_IEC_559 < 1) || defined(_M_FP_FAST)
#error "fastdrop needs IEEE 754 arithmetic: build it without -ffast-math, -Ofast, /fp:fast and their parts."
#endif

/* 16 means that _Float16, which is not used, is computed in its own precision. */
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "fastdrop rounds each float to its own precision: build it for SSE2 (-mfpmath=sse) or another FPU."
#endif

/* Kernels read words of the stream, masks and elements as bytes, of which the least significant comes first. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fastdrop's kernels are written for little-endian machines."
#endif

#if defined(__CHAR_BIT__) && __CHAR_BIT__ != 8
#error "fastdrop's kernels are written for bytes of 8 bits."
#endif

#if (-1 >> 1) != -1
#error "fastdrop's kernels shift the sign of a negative integer to the right."
#endif

/* gcc compiles the intrinsic functions of bytes wrongly with -funsigned-char. */
#if (defined(__x86_64__) || defined(_M_X64)) && defined(__CHAR_UNSIGNED__)
#error "fastdrop's kernels need a signed char on x86-64: build it without -funsigned-char."
#endif

/* An array of -1 elements is an error, also for compilers without _Static_assert. */
#define FASTDROP_NEEDS(what, condition) typedef char fastdrop_needs_##what[(condition) ? 1 : -1]

FASTDROP_NEEDS(float_of_32_bits, sizeof(float) == 4);
FASTDROP_NEEDS(double_of_64_bits, sizeof(double) == 8);
FASTDROP_NEEDS(constants_that_are_double, sizeof(1.0) == sizeof(double)); /* -fsingle-precision-constant */

/* Python and NumPy were compiled with the platform's own layout of structures, which these flags change. */
enum fastdrop_enum { FASTDROP_ENUM };
struct fastdrop_struct {
    char first;
    double second;
    char third;
};
struct fastdrop_align {
    char first;
    void *second;
};
FASTDROP_NEEDS(enum_as_wide_as_int, sizeof(enum fastdrop_enum) == sizeof(int)); /* -fshort-enums */
FASTDROP_NEEDS(structs_that_are_padded, sizeof(struct fastdrop_align) == 2 * sizeof(void *) &&
                                            sizeof(struct fastdrop_struct) > 8 + 2); /* -fpack-struct */

#endif
