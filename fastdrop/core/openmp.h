/* This declares OpenMP, or one thread where the compiler does not have it, and handles threads that cannot start, threads
 * that wait for a processor, and forks. */
#ifdef _OPENMP
#include <omp.h>
#define WITH_OPENMP 1
#else
#define WITH_OPENMP 0
static inline int omp_get_max_threads(void)
{
    return 1;
}

static inline double omp_get_wtime(void)
{
    return 0;
}
#endif

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/* What dispatch.pyx remembers of a thread's calls, in seconds by omp_get_wtime. */
typedef struct {
    double pause; /* how long calls run alone after the last stall, and 0 before the first */
    double alone_until;
    double last; /* when the last call ended that threads could have been worth */
} thread_history;

static inline thread_history *own_history(void)
{
    static THREAD_LOCAL thread_history history;
    return &history;
}

#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>
#include <stdlib.h>

static void *wait_at_gate(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* Return how many of `wanted` threads can live at once: they are created, and then released together. */
static int count_threads(int wanted)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *threads = malloc(wanted * sizeof(*threads));
    int created = 0, joined;
    if (threads == NULL)
        return 0;
    pthread_mutex_lock(&gate);
    while (created < wanted && pthread_create(&threads[created], NULL, wait_at_gate, &gate) == 0)
        created++;
    pthread_mutex_unlock(&gate);
    for (joined = 0; joined < created; joined++)
        pthread_join(threads[joined], NULL);
    free(threads);
    return created;
}

/* Return how many threads, including the calling one, a parallel region can have that wants `wanted`.
 *
 * OpenMP ends the process when it cannot create a thread. So a region that has more threads than the calling thread's last
 * one is tried first: as many threads are created. OpenMP itself creates one less, which leaves the room of one for what
 * else it allocates. The last region counts, not the largest one, because libgomp ends threads that a region does not
 * use. */
static inline int threads_that_start(int wanted)
{
    static THREAD_LOCAL int last = 1;
    int created;
    if (wanted <= 1 || omp_in_parallel())
        return 1;
    if (wanted > last) {
        created = count_threads(wanted);
        if (created <= 1)
            return 1;
        wanted = created;
    }
    last = wanted;
    return wanted;
}

/* Let every fork() call `child` in the child process, also a fork that Python does not see. */
static inline void register_fork_handler(void (*child)(void))
{
    pthread_atfork(NULL, NULL, child);
}
#else
static inline int threads_that_start(int wanted)
{
    return wanted;
}

static inline void register_fork_handler(void (*child)(void))
{
    (void)child;
}
#endif
