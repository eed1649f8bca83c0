/* An allocator that fails once, at the n-th allocation after `arm(n)` of the thread that armed it.

   For LD_PRELOAD, on glibc: its own names lead past the functions that are replaced here. With
   PYTHONMALLOC=malloc every object of Python comes this way too. */

#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static __thread long left;     /* allocations until the one that fails; 0: none will */
static __thread long failed;   /* allocations that have failed since `arm` */

void arm(long n)
{
    failed = 0;
    left = n;
}

/* Let all allocations succeed again, and say whether one has failed. */
long disarm(void)
{
    left = 0;
    return failed;
}

static int fails(void)
{
    if (left == 0 || --left > 0)
        return 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return fails() ? NULL : __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    void *found = memalign(alignment, size);
    if (found == NULL)
        return ENOMEM;
    *block = found;
    return 0;
}
