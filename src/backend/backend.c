#include "backend/backend.h"

#include "backend/cpu/cpu.h"

#include <string.h>

/* One row for each kind of device. */
static const struct {
    const char *name;
    bg_status (*open)(const char *device, int threads, bg_backend **out, bg_error *err);
} kinds[] = {
    {"cpu", bg_cpu_open},
};

bg_status bg_backend_open(const char *device, int threads, bg_backend **out, bg_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, device) == 0) return kinds[i].open(device, threads, out, err);
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "device \"%s\" is not known to this build; use --device cpu (`bitgauge devices` "
                   "lists what there is)",
                   device);
}
