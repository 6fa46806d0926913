/* The way into the CUDA backend. It is a library of its own, loaded at run time, so that the
 * program starts on a machine that has neither driver nor toolkit. loader.c, which is part of the
 * program, finds and opens it; its one exported symbol is a bg_cuda_library. */
#ifndef BG_BACKEND_CUDA_LIBRARY_H
#define BG_BACKEND_CUDA_LIBRARY_H

#include "backend/backend.h"

typedef struct {
    char name[256];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t memory_bytes, free_bytes;
    size_t l2_bytes;
    char driver_version[80]; /* "580.65.06"; empty where NVML does not say */
    int driver, runtime;     /* CUDA's versions: 13000 is 13.0 */
    double copy_bytes_per_s; /* device to device, bytes read and bytes written; 0: not measured */
} bg_cuda_device;

/* How many GPUs there are; with `err`, why there is none. */
int bg_cuda_count(bg_error *err);
/* Looks at device `index`, and measures it. */
bg_status bg_cuda_describe(int index, bg_cuda_device *out, bg_error *err);
/* The index of the device that bg_cuda_open would open; opens nothing. */
bg_status bg_cuda_find(const char *device, int *index, bg_error *err);
/* device: "cuda", which is the first GPU, or "cuda:N". */
bg_status bg_cuda_open(const char *device, int threads, bg_backend **out, bg_error *err);

/* ---- between loader.c and the library -------------------------------------------------------- */

/* Changes with every interface that the two share, so that a library from another build is refused
 * and not called. */
#define BG_CUDA_ABI                                                                                \
    (1000 * BG_FORMAT_COUNT + sizeof(bg_backend_ops) + sizeof(bg_linear) + sizeof(bg_attention) +  \
     sizeof(bg_lookup) + sizeof(bg_choice) + sizeof(bg_usage) + sizeof(bg_cuda_device))
#define BG_CUDA_SYMBOL "bg_cuda_library_table"

typedef struct {
    size_t abi;
    int (*count)(bg_error *err);
    bg_status (*describe)(int index, bg_cuda_device *out, bg_error *err);
    bg_status (*open)(int index, bg_backend **out, bg_error *err);
} bg_cuda_library;

#endif
