/* A build with -DFASTDROP_ASSERT ends the process where an invariant does not hold. The sanitizers run such builds. */
#ifndef FASTDROP_ENSURE_H
#define FASTDROP_ENSURE_H

#ifdef FASTDROP_ASSERT
#include <stdio.h>
#include <stdlib.h>
static inline void ensure(int invariant, const char *text)
{
    if (!invariant) {
        fprintf(stderr, "fastdrop: an invariant does not hold: %s\n", text);
        abort();
    }
}
#else
static inline void ensure(int invariant, const char *text)
{
    (void)invariant;
    (void)text;
}
#endif

#endif
