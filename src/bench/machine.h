/* What this machine is. */
#ifndef BG_BENCH_MACHINE_H
#define BG_BENCH_MACHINE_H

#include "core/error.h"
#include "core/threads.h"

#include <jansson.h>

/* The "machine" object of the results, without the bandwidth; NULL when out of memory. */
json_t *bg_machine_describe(void);

/* Bytes per second that `threads` read from memory: the best of several passes over a buffer much
 * larger than the caches. */
bg_status bg_measure_bandwidth(bg_threads *threads, double *bytes_per_s, bg_error *err);

/* Bytes of memory that could be used without swapping; 0 where the system does not say. */
int64_t bg_available_memory(void);

#endif
