#include "core/threads.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

struct bg_threads {
    int count;
    pthread_t *ids;
    int started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint generation; /* one more for each loop; workers wait for it to change */
    atomic_int sleepers;
    atomic_uint gate; /* OPEN while the loop takes helpers, plus how many are inside */
    atomic_bool stop;
    /* the current loop */
    bg_loop_body body;
    void *context;
    size_t n, grain;
    atomic_size_t next;
};

typedef struct {
    bg_threads *pool;
    int index;
} worker_start;

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int bg_processor_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void run_ranges(bg_threads *pool, int thread)
{
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&pool->next, pool->grain, memory_order_relaxed);
        if (begin >= pool->n) return;
        pool->body(pool->context, begin, bg_min_size(begin + pool->grain, pool->n), thread);
    }
}

/* Long enough to bridge the gap between two operations of a forward pass, short enough that an idle
 * pool costs nothing. */
enum { SPINS = 20000 };

/* A worker joins a loop through its gate and only while it is open: one that the system has not yet
 * scheduled is not waited for, so that a busy machine costs a loop its help and no more. */
#define OPEN 0x80000000u

static void *worker(void *argument)
{
    worker_start start = *(worker_start *)argument;
    bg_free(argument);
    bg_threads *pool = start.pool;
    unsigned seen = 0;
    for (;;) {
        unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        for (int spin = 0; now == seen && spin < SPINS; spin++) {
            pause_briefly();
            now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        }
        if (now == seen) {
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleepers, 1);
            while ((now = atomic_load(&pool->generation)) == seen)
                pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        seen = now;
        if (atomic_load(&pool->stop)) return NULL;
        unsigned gate = atomic_load(&pool->gate);
        while ((gate & OPEN) && !atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) {
        }
        if (!(gate & OPEN)) continue;
        run_ranges(pool, start.index);
        atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release);
    }
}

static void next_generation(bg_threads *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

bg_status bg_threads_create(int count, bg_threads **out, bg_error *err)
{
    *out = NULL;
    if (count <= 0) count = bg_processor_count();
    bg_threads *pool = bg_calloc(1, sizeof *pool);
    if (!pool) return bg_fail_memory(err, sizeof *pool, "a thread pool");
    pool->count = count;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->ids = bg_calloc((size_t)count, sizeof *pool->ids);
    if (!pool->ids) {
        bg_threads_free(pool);
        return bg_fail_memory(err, (size_t)count * sizeof(pthread_t), "a thread pool");
    }
    for (int i = 1; i < count; i++) {
        worker_start *start = bg_alloc(sizeof *start);
        if (start) *start = (worker_start){pool, i};
        if (!start || pthread_create(&pool->ids[pool->started], NULL, worker, start) != 0) {
            bg_free(start);
            bg_threads_free(pool);
            return bg_fail(err, BG_ERR_MEMORY,
                           "cannot start thread %d of %d; ask for fewer with --threads", i + 1,
                           count);
        }
        pool->started++;
    }
    *out = pool;
    return BG_OK;
}

void bg_threads_free(bg_threads *pool)
{
    if (!pool) return;
    atomic_store(&pool->stop, true);
    next_generation(pool);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->ids[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bg_free(pool->ids);
    bg_free(pool);
}

int bg_threads_count(const bg_threads *pool)
{
    return pool->count;
}

void bg_parallel_for(bg_threads *pool, size_t n, size_t grain, bg_loop_body body, void *context)
{
    if (n == 0) return;
    if (grain == 0) grain = 1;
    if (pool->started == 0 || n <= grain) {
        for (size_t begin = 0; begin < n; begin += bg_min_size(grain, n - begin))
            body(context, begin, begin + bg_min_size(grain, n - begin), 0);
        return;
    }
    pool->body = body;
    pool->context = context;
    pool->n = n;
    pool->grain = grain;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->gate, OPEN, memory_order_release);
    next_generation(pool);
    run_ranges(pool, 0);
    atomic_fetch_and(&pool->gate, ~OPEN);
    /* Those that joined are inside their last range. */
    for (int spin = 0; atomic_load_explicit(&pool->gate, memory_order_acquire) > 0; spin++) {
        if (spin < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
}
