/* cpu_has() says whether the CPU has an instruction set and the operating system saves its registers. */
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

/* The operating system saves these registers. */
enum { XMM_YMM = 0x06, XMM_YMM_OPMASK_ZMM = 0xE6 };

static int bit(unsigned word, int index)
{
    return word >> index & 1;
}

static int has_all(unsigned word, unsigned bits)
{
    return (word & bits) == bits;
}

static int cpu_has(const char *name)
{
    unsigned leaf1[4], leaf7[4], state;
    int osxsave, avx, f16c, aes, avx2, vaes, avx512;
    cpuid(1, leaf1);
    cpuid(7, leaf7);
    osxsave = bit(leaf1[ECX], 27);
    if (!osxsave) /* The instruction that reads the enabled state does not exist. */
        return 0;
    state = enabled_state();
    aes = bit(leaf1[ECX], 25);
    avx = bit(leaf1[ECX], 28);
    f16c = bit(leaf1[ECX], 29);
    avx2 = has_all(state, XMM_YMM) && avx && f16c && bit(leaf7[EBX], 5) && aes;
    vaes = avx2 && bit(leaf7[ECX], 9);
    /* These are F, DQ, BW and VL. */
    avx512 = vaes && has_all(state, XMM_YMM_OPMASK_ZMM) && bit(leaf7[EBX], 16) && bit(leaf7[EBX], 17) &&
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
#define HAS_AES 1 /* Every Mac with AArch64 has it. */
#elif defined(_WIN32)
/* This is declared as in windows.h, which defines too many other names. */
__declspec(dllimport) int __stdcall IsProcessorFeaturePresent(unsigned long feature);
enum { ARM_V8_CRYPTO_INSTRUCTIONS = 30 };
#define HAS_AES IsProcessorFeaturePresent(ARM_V8_CRYPTO_INSTRUCTIONS)
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
