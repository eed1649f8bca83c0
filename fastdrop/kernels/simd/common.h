/* What every vocabulary is written with. */
#ifndef FASTDROP_COMMON_H
#define FASTDROP_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../kernel.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define VOCABULARY static __forceinline
#else
#define VOCABULARY static inline __attribute__((always_inline, unused))
#endif


#endif
