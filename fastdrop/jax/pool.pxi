# Work in parts, on the threads of XLA. OpenMP would give each of XLA's threads a team of its own, and whoever waits for a
# thread that has no CPU waits for milliseconds. Here the calling thread takes parts until none is left, and so do the
# helpers that XLA runs. A helper that comes too late finds nothing to do, so nobody waits for a thread that has not begun.

cdef extern from "atomic.h" nogil:
    int64_t fetch_add(int64_t* counter, int64_t number)
    void LET_OTHERS_RUN()


cdef struct Job:
    Work work
    int64_t parts
    # The next part that nobody has taken, the parts that are done, and the threads that still have the job.
    int64_t next
    int64_t done
    int64_t holders


cdef void run_job(const Frame* call, const Work* work) noexcept nogil:
    cdef int64_t parts = parts_of(work), part
    cdef int64_t size = work.rows.count * work.rows.size
    cdef int helpers = min(dispatch.threads_for(size), size // PART, parts) - 1
    cdef Job* job = <Job*> malloc(sizeof(Job)) if helpers > 0 and can_schedule(call) else NULL
    if job == NULL:
        for part in range(parts):
            run_part(work, part)
        return
    job.work = work[0]
    job.parts = parts
    job.next = job.done = 0
    job.holders = 1 + helpers
    schedule(call, job, helpers)
    take_parts(job)
    while fetch_add(&job.done, 0) < parts:
        LET_OTHERS_RUN()
    let_go(job)


cdef void take_parts(Job* job) noexcept nogil:
    cdef int64_t part = fetch_add(&job.next, 1)
    while part < job.parts:
        run_part(&job.work, part)
        fetch_add(&job.done, 1)
        part = fetch_add(&job.next, 1)


cdef void let_go(Job* job) noexcept nogil:
    if fetch_add(&job.holders, -1) == 1:
        free(job)


cdef void help_with(void* job) noexcept nogil:
    take_parts(<Job*> job)
    let_go(<Job*> job)


cdef bint can_schedule(const Frame* call) noexcept nogil:
    return call.api.size >= sizeof(Api) and call.api.schedule != NULL and call.api.destroy_error != NULL


cdef void schedule(const Frame* call, Job* job, int helpers) noexcept nogil:
    """Ask XLA to run helpers. It has none to give on some of its ways to run a program."""
    cdef ScheduleRequest request
    cdef DestroyRequest refusal
    cdef int helper
    request.size = sizeof(request)
    request.extensions = NULL
    request.context = call.context
    request.task = &help_with
    request.data = job
    for helper in range(helpers):
        refusal.error = call.api.schedule(&request)
        if refusal.error != NULL:
            refusal.size = sizeof(refusal)
            refusal.extensions = NULL
            call.api.destroy_error(&refusal)
            let_go(job)
