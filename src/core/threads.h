/* A pool of threads for parallel loops. Between loops the workers spin for a
 * fraction of a millisecond, since a decode step starts a loop every few microseconds, and then
 * sleep. */
#ifndef BG_CORE_THREADS_H
#define BG_CORE_THREADS_H

#include "core/error.h"

#include <stddef.h>

typedef struct bg_threads bg_threads;

/* A pool of `count` threads, the calling one included (count 1 starts none); 0 means one for every
 * processor this process may run on. */
bg_status bg_threads_create(int count, bg_threads **out, bg_error *err);
void bg_threads_free(bg_threads *threads);
int bg_threads_count(const bg_threads *threads);

/* Processors that this process may run on. */
int bg_processor_count(void);

/* Calls body(context, begin, end, thread) over disjoint ranges that cover [0, n), each `grain` long
 * but for the last, thread in [0, count). Returns when all are done. Ranges are handed out as
 * threads come free. Not reentrant: a body may not start a loop of its own. */
typedef void (*bg_loop_body)(void *context, size_t begin, size_t end, int thread);
void bg_parallel_for(bg_threads *threads, size_t n, size_t grain, bg_loop_body body, void *context);

#endif
