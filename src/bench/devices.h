/* What a GPU is. */
#ifndef BG_BENCH_DEVICES_H
#define BG_BENCH_DEVICES_H

#include "core/error.h"

#include <jansson.h>

/* Its entry in the results' machine.gpus; `device` is what --device takes. Its bandwidth is
 * measured now. The process keeps what the driver needs for it. */
bg_status bg_describe_gpu(const char *device, json_t **out, bg_error *err);

#endif
