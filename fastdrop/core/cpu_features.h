/* Which instruction sets the CPU has and the operating system saves the registers of. */
#ifndef FASTDROP_CPU_FEATURES_H
#define FASTDROP_CPU_FEATURES_H

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)

#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
static void cpuid(unsigned leaf, unsigned registers[4]) { __cpuidex((int *)registers, (int)leaf, 0); }
static unsigned enabled_state(void) { return (unsigned)_xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(unsigned leaf, unsigned registers[4])
{
    registers[0] = registers[1] = registers[2] = registers[3] = 0;
    __get_cpuid_count(leaf, 0, registers, registers + 1, registers + 2, registers + 3);
}
static unsigned enabled_state(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#endif

enum { EBX = 1, ECX = 2 };

static int bit(unsigned word, int index)
{
    return word >> index & 1;
}

static int cpu_has(const char *name)
{
    unsigned leaf1[4], leaf7[4], state;
    int avx2, vaes, avx512;
    cpuid(1, leaf1);
    cpuid(7, leaf7);
    if (!bit(leaf1[ECX], 27)) /* OSXSAVE: xgetbv exists */
        return 0;
    state = enabled_state();
    /* XMM and YMM state; AVX, F16C, AVX2, AES */
    avx2 = (state & 0x06) == 0x06 && bit(leaf1[ECX], 28) && bit(leaf1[ECX], 29) && bit(leaf7[EBX], 5) &&
           bit(leaf1[ECX], 25);
    vaes = avx2 && bit(leaf7[ECX], 9);
    /* and opmask and ZMM state; F, DQ, BW, VL */
    avx512 = vaes && (state & 0xE6) == 0xE6 && bit(leaf7[EBX], 16) && bit(leaf7[EBX], 17) &&
             bit(leaf7[EBX], 30) && bit(leaf7[EBX], 31);
    return (avx2 && !strcmp(name, "avx2")) || (vaes && !strcmp(name, "avx2_vaes")) ||
           (avx512 && !strcmp(name, "avx512"));
}

#elif defined(__aarch64__) || defined(_M_ARM64)

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define HAS_AES (getauxval(AT_HWCAP) & HWCAP_AES)
#elif defined(__APPLE__)
#define HAS_AES 1 /* every Mac with AArch64 */
#else
#define HAS_AES 0
#endif

static int cpu_has(const char *name)
{
    return HAS_AES && !strcmp(name, "neon");
}

#else

static int cpu_has(const char *name)
{
    (void)name;
    return 0;
}

#endif

#endif
