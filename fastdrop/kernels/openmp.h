/* OpenMP where the compiler has it, one thread where not. */
#ifdef _OPENMP
#include <omp.h>
#define WITH_OPENMP 1
#else
#define WITH_OPENMP 0
static inline int omp_get_max_threads(void)
{
    return 1;
}
#endif
static inline int threads_that_start(int wanted)
{
    return wanted;
}
