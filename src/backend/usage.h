/* What a backend has in use: by its own account, and, on a device with memory of its own, as the
 * driver sees it. */
#ifndef BG_BACKEND_USAGE_H
#define BG_BACKEND_USAGE_H

#include <stddef.h>

typedef enum {
    BG_USE_WEIGHTS,
    BG_USE_ACTIVATIONS,
    BG_USE_CACHES,    /* keys and values */
    BG_USE_WORKSPACE, /* room for operations and for loading, constant tables */
    BG_USE_COUNT,
} bg_use;

/* Bytes that were asked for and not given back. */
typedef struct {
    size_t now[BG_USE_COUNT], most[BG_USE_COUNT]; /* of each use: now, and the most at once */
    size_t total, peak;                           /* of all uses together: the same */
} bg_tally;

static inline void bg_tally_add(bg_tally *tally, bg_use use, size_t bytes)
{
    tally->now[use] += bytes;
    tally->total += bytes;
    if (tally->now[use] > tally->most[use]) tally->most[use] = tally->now[use];
    if (tally->total > tally->peak) tally->peak = tally->total;
}

static inline void bg_tally_drop(bg_tally *tally, bg_use use, size_t bytes)
{
    tally->now[use] -= bytes;
    tally->total -= bytes;
}

/* A device with memory of its own. */
typedef struct {
    const char *name;        /* "NVIDIA H200"; NULL: this backend uses the host's memory */
    size_t total, available; /* bytes it has, and those that nobody uses */
    /* Who says what this process has of it: "nvml", the driver by process, everything counted; or
     * "cudaMemGetInfo", by how much less was available than when the backend was opened, whoever
     * took it. NULL: nobody does. */
    const char *source;
    size_t used,
        peak;       /* now, and the most that was seen; read whenever the tally falls from a peak */
    size_t refused; /* what the last allocation that failed asked for; 0: none did */
    const char *no_energy; /* why the energy is not measured; NULL: it is */
} bg_device_usage;

typedef struct {
    bg_tally held;
    bg_device_usage device;
} bg_usage;

#endif
