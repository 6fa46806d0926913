/* Monotonic time. */
#ifndef BG_CORE_CLOCK_H
#define BG_CORE_CLOCK_H

#include <time.h>

/* Seconds since some fixed moment; never steps back, not slewed by the system's clock. */
static inline double bg_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
