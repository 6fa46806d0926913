/* The thread pool: every index once, whatever the length, the grain and the number of threads. */
#include "test.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/threads.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    atomic_uchar *seen;
    size_t n, grain;
    int threads;
    atomic_int wrong; /* ranges that break the contract */
    atomic_size_t sum;
} loop;

static void visit(void *context, size_t begin, size_t end, int thread)
{
    loop *l = context;
    bool good = begin < end && end <= l->n && thread >= 0 && thread < l->threads &&
                (end - begin >= l->grain || end == l->n);
    if (!good) atomic_fetch_add(&l->wrong, 1);
    for (size_t i = begin; i < end && i < l->n; i++) atomic_fetch_add(&l->seen[i], 1);
}

static void check_loop(bg_threads *pool, size_t n, size_t grain)
{
    loop l = {.n = n, .grain = grain, .threads = bg_threads_count(pool)};
    l.seen = calloc(n + 1, sizeof *l.seen);
    bg_parallel_for(pool, n, grain, visit, &l);
    size_t once = 0;
    for (size_t i = 0; i < n; i++) once += l.seen[i] == 1;
    CHECK(once == n && l.wrong == 0, "n %zu, grain %zu, %d threads: %zu once, %d wrong ranges", n,
          grain, l.threads, once, l.wrong);
    free(l.seen);
}

static void test_coverage(void)
{
    static const size_t lengths[] = {0, 1, 2, 3, 7, 16, 63, 64, 65, 1000, 4097, 100003};
    static const size_t grains[] = {0, 1, 2, 3, 16, 64, 1000, 100003, SIZE_MAX};
    static const int counts[] = {1, 2, 3, 4, 8, 17};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        bg_threads *pool;
        bg_error err = {0};
        bg_status status = bg_threads_create(counts[c], &pool, &err);
        CHECK(status == BG_OK, "%s", err.message);
        if (status != BG_OK) continue;
        CHECK(bg_threads_count(pool) == counts[c], "%d", bg_threads_count(pool));
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (size_t k = 0; k < sizeof grains / sizeof *grains; k++)
                check_loop(pool, lengths[i], grains[k]);
        bg_threads_free(pool);
    }
}

static void add(void *context, size_t begin, size_t end, int thread)
{
    loop *l = context;
    size_t sum = 0;
    (void)thread;
    for (size_t i = begin; i < end; i++) sum += i;
    atomic_fetch_add(&l->sum, sum);
}

/* As a decode step does: thousands of short loops, one right after the other. */
static void test_many_loops(void)
{
    static const int counts[] = {2, 4};
    for (size_t c = 0; c < 2; c++) {
        bg_threads *pool;
        bg_error err = {0};
        CHECK(bg_threads_create(counts[c], &pool, &err) == BG_OK, "%s", err.message);
        int wrong = 0;
        double start = bg_seconds();
        /* a machine of one processor takes a time slice for each: not more than two seconds */
        for (size_t i = 0; i < 20000 && bg_seconds() - start < 2; i++) {
            loop l = {0};
            size_t n = i % 97 + 2;
            bg_parallel_for(pool, n, 1, add, &l);
            wrong += l.sum != n * (n - 1) / 2;
        }
        CHECK(wrong == 0, "%d loops are wrong", wrong);
        bg_threads_free(pool);
    }
}

/* Loops after pauses long enough to fall asleep, and about as long as falling asleep takes. */
static void test_sleep_and_wake(void)
{
    bg_threads *pool;
    bg_error err = {0};
    CHECK(bg_threads_create(3, &pool, &err) == BG_OK, "%s", err.message);
    int wrong = 0;
    for (unsigned i = 0; i < 400; i++) {
        loop l = {0};
        usleep(i % 40 == 0 ? 20000 : i * 2);
        bg_parallel_for(pool, 100, 1, add, &l);
        wrong += l.sum != 4950;
    }
    CHECK(wrong == 0, "%d loops are wrong", wrong);
    usleep(20000);
    /* asleep, they cost nothing */
    double before = (double)clock() / CLOCKS_PER_SEC;
    usleep(200000);
    double used = (double)clock() / CLOCKS_PER_SEC - before;
    CHECK(used < 0.1, "%.3f s of processor time in 0.2 s of sleep", used);
    bg_threads_free(pool);
}

static void test_create(void)
{
    bg_threads *pool;
    bg_error err = {0};
    CHECK(bg_processor_count() >= 1, "%d", bg_processor_count());
    CHECK(bg_threads_create(0, &pool, &err) == BG_OK, "%s", err.message);
    CHECK(bg_threads_count(pool) == bg_processor_count(), "%d", bg_threads_count(pool));
    bg_threads_free(pool);
    bg_threads_free(NULL);
    for (int i = 0; i < 200; i++) { /* freed before, while and after the threads start */
        CHECK(bg_threads_create(4, &pool, &err) == BG_OK, "%s", err.message);
        if (i % 3 == 0) check_loop(pool, 10, 1);
        bg_threads_free(pool);
    }
    bg_status status = BG_ERR_MEMORY;
    long n = 0;
    for (; status != BG_OK && n < 100; n++) {
        bg_alloc_fail_after(n);
        status = bg_threads_create(4, &pool, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || (status == BG_ERR_MEMORY && !pool), "after %ld", n);
    }
    CHECK(n == 6, "%ld allocations", n - 1); /* the pool, its ids, three starts */
    bg_threads_free(pool);
}

static void test_clock(void)
{
    double last = bg_seconds();
    int backwards = 0;
    for (int i = 0; i < 100000; i++) {
        double now = bg_seconds();
        backwards += now < last;
        last = now;
    }
    CHECK(backwards == 0, "%d steps back", backwards);
    usleep(20000);
    double slept = bg_seconds() - last;
    CHECK(slept >= 0.019, "%.4f s of 0.02", slept);
}

int main(void)
{
    RUN(test_coverage);
    RUN(test_many_loops);
    RUN(test_sleep_and_wake);
    RUN(test_create);
    RUN(test_clock);
    return test_finish();
}
