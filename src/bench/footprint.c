#include "bench/footprint.h"

#include "bench/memory.h"

void bg_footprint_read(bg_backend *backend, bg_footprint *out)
{
    *out = (bg_footprint){.rss = bg_resident_bytes()};
    backend->ops->usage(backend, &out->usage);
}

/* object[key] = value, which is consumed; false where one of them is missing. */
static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

json_t *bg_footprint_loading(const bg_footprint *before, const bg_footprint *loaded)
{
    const bg_device_usage *a = &before->usage.device, *b = &loaded->usage.device;
    json_t *memory =
        json_pack("{s:{s:I, s:I}}", "allocated", "before", (json_int_t)before->usage.held.total,
                  "loaded", (json_int_t)loaded->usage.held.total);
    if (!a->source || !b->source) return memory;
    if (set(memory, "device",
            json_pack("{s:s, s:I, s:I, s:I}", "source", b->source, "total", (json_int_t)b->total,
                      "before", (json_int_t)a->used, "loaded", (json_int_t)b->used)))
        return memory;
    json_decref(memory);
    return NULL;
}

json_t *bg_footprint_end(const bg_footprint *end)
{
    static const char *const uses[BG_USE_COUNT] = {
        [BG_USE_WEIGHTS] = "weights",
        [BG_USE_ACTIVATIONS] = "activations",
        [BG_USE_CACHES] = "caches",
        [BG_USE_WORKSPACE] = "workspace",
    };
    const bg_tally *held = &end->usage.held;
    const bg_device_usage *device = &end->usage.device;
    json_t *allocated =
        json_pack("{s:I, s:I}", "peak", (json_int_t)held->peak, "end", (json_int_t)held->total);
    bool ok = true;
    for (int i = 0; i < BG_USE_COUNT; i++)
        ok &= set(allocated, uses[i], json_integer((json_int_t)held->most[i]));
    json_t *memory = json_object();
    ok &= set(memory, "allocated", allocated);
    if (device->source)
        ok &= set(memory, "device",
                  json_pack("{s:I, s:I}", "peak", (json_int_t)device->peak, "end",
                            (json_int_t)device->used));
    if (ok) return memory;
    json_decref(memory);
    return NULL;
}
