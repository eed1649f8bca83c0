/* Counters that threads share. */
#ifndef FASTDROP_ATOMIC_H
#define FASTDROP_ATOMIC_H

#include <stdint.h>

#if defined(_MSC_VER)
#include <intrin.h>
/* This is declared as in windows.h, which defines too many other names. */
__declspec(dllimport) int __stdcall SwitchToThread(void);
#define LET_OTHERS_RUN() SwitchToThread()
#else
#include <sched.h>
#define LET_OTHERS_RUN() sched_yield()
#endif

/* Adds to a counter, and returns its value from before. */
static inline int64_t fetch_add(int64_t* counter, int64_t number) {
#if defined(_MSC_VER)
    return _InterlockedExchangeAdd64((volatile __int64*)counter, number);
#else
    return __atomic_fetch_add(counter, number, __ATOMIC_ACQ_REL);
#endif
}

#endif
