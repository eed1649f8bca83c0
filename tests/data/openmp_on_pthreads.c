/* GNU OpenMP's parallel regions on plain POSIX threads, to be preloaded. The thread sanitizer sees how these
 * begin, meet and end; it takes the barriers of libgomp itself for races. A loop with a static schedule calls
 * nothing else. */
#include <pthread.h>
#include <stdlib.h>

struct team {
    void (*work)(void *);
    void *data;
    int size;
    pthread_barrier_t barrier;
};

struct member {
    struct team *team;
    int number;
    pthread_t thread;
};

static __thread struct member *self;

int omp_get_thread_num(void)
{
    return self ? self->number : 0;
}

int omp_get_num_threads(void)
{
    return self ? self->team->size : 1;
}

void GOMP_barrier(void)
{
    if (self)
        pthread_barrier_wait(&self->team->barrier);
}

static void *work(void *argument)
{
    struct member *outer = self;
    self = argument;
    self->team->work(self->team->data);
    self = outer;
    return NULL;
}

void GOMP_parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags)
{
    struct team team = {function, data, (int) threads};
    struct member *members = calloc(threads, sizeof *members);
    (void) flags;
    if (!threads || !members || pthread_barrier_init(&team.barrier, NULL, threads))
        abort();
    for (int n = (int) threads - 1; n >= 0; n--) {
        members[n].team = &team;
        members[n].number = n;
        if (n && pthread_create(&members[n].thread, NULL, work, &members[n]))
            abort();
    }
    work(&members[0]);
    for (int n = 1; n < (int) threads; n++)
        pthread_join(members[n].thread, NULL);
    pthread_barrier_destroy(&team.barrier);
    free(members);
}
