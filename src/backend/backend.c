#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "backend/cuda/library.h"
#include "core/checked.h"

#include <string.h>

/* One row for each kind of device. */
static const struct {
    const char *name;
    bg_status (*open)(const char *device, int threads, bg_backend **out, bg_error *err);
} kinds[] = {
    {"cpu", bg_cpu_open},
    {"cuda", bg_cuda_open},
};

/* "cuda" and "cuda:1" are both of the kind "cuda". */
static bool is_kind(const char *device, const char *kind)
{
    const size_t n = strlen(kind);
    return strncmp(device, kind, n) == 0 &&
           (device[n] == '\0' || (device[n] == ':' && strcmp(kind, "cpu") != 0));
}

static bg_status unknown(const char *device, bg_error *err)
{
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "device \"%.64s\" is not known; use --device cpu, cuda or cuda:N (`bitgauge "
                   "devices` lists what there is)",
                   device);
}

bg_status bg_backend_check(const char *device, bg_error *err)
{
    int index;
    if (is_kind(device, "cuda")) return bg_cuda_find(device, &index, err);
    return is_kind(device, "cpu") ? BG_OK : unknown(device, err);
}

bg_status bg_backend_open(const char *device, int threads, bg_backend **out, bg_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (is_kind(device, kinds[i].name)) return kinds[i].open(device, threads, out, err);
    return unknown(device, err);
}

bg_status bg_cache_measure(size_t n_layers, size_t n_slots, size_t max_length, size_t n_heads,
                           size_t head_dim, size_t value_bytes, bg_cache *out, bg_error *err)
{
    const size_t sizes[] = {n_layers, n_slots, max_length, n_heads, head_dim, 2};
    size_t bytes = value_bytes;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!bg_mul_size(bytes, sizes[i], &bytes))
            return bg_fail(
                err, BG_ERR_MEMORY,
                "a cache of %zu sequences of %zu tokens is too large; use a smaller batch", n_slots,
                max_length);
    *out = (bg_cache){n_layers, n_slots, max_length, n_heads, head_dim, bytes};
    return BG_OK;
}
