/* The floating-point mode of a thread is how it rounds, what it does with subnormal numbers, and what it traps. Results
 * depend on the arguments alone, so kernels compute in the default mode. A thread then gets its own mode back. */
#ifndef FASTDROP_FLOAT_MODE_H
#define FASTDROP_FLOAT_MODE_H

#if defined(__x86_64__) || defined(_M_X64)

#include <xmmintrin.h>
typedef unsigned float_mode;
/* By default MXCSR rounds to nearest, computes with subnormal numbers and traps nothing. Its lowest six bits are flags,
 * which do not belong to the mode. */
enum { MXCSR_DEFAULT = 0x1F80, MXCSR_FLAGS = 0x3F };

static inline int is_default(unsigned mode)
{
    return (mode | MXCSR_FLAGS) == (MXCSR_DEFAULT | MXCSR_FLAGS);
}

static inline float_mode enter_default_mode(void)
{
    unsigned mode = _mm_getcsr();
    if (!is_default(mode))
        _mm_setcsr(MXCSR_DEFAULT | (mode & MXCSR_FLAGS));
    return mode;
}

static inline void leave_default_mode(float_mode mode)
{
    if (!is_default(mode))
        _mm_setcsr(mode);
}

#elif defined(__aarch64__) && !defined(_MSC_VER)

#include <stdint.h>
typedef uint64_t float_mode; /* This is FPCR, which is 0 by default. */

static inline float_mode enter_default_mode(void)
{
    uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    if (mode)
        __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)0));
    return mode;
}

static inline void leave_default_mode(float_mode mode)
{
    if (mode)
        __asm__ __volatile__("msr fpcr, %0" : : "r"(mode));
}

#else

#include <fenv.h>
typedef fenv_t float_mode;

static inline float_mode enter_default_mode(void)
{
    fenv_t mode;
    fegetenv(&mode);
    fesetenv(FE_DFL_ENV);
    return mode;
}

static inline void leave_default_mode(float_mode mode)
{
    fesetenv(&mode);
}

#endif

#endif
