/* bg_describe_devices: what this machine has to run on, and with which kernels. */
#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "bench/machine.h"
#include "bitgauge/bitgauge.h"
#include "core/alloc.h"
#include "core/json.h"
#include "core/text.h"
#include "quant/format.h"

#include <string.h>

static json_t *kernel_list(const bg_backend *backend)
{
    json_t *list = json_array();
    for (int id = 0; list && id < BG_FORMAT_COUNT; id++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s}", "precision", bg_formats[id].name,
                                        "one_row", backend->ops->kernel(backend, id, false),
                                        "several_rows", backend->ops->kernel(backend, id, true)));
    return list;
}

static json_t *isa_list(void)
{
    json_t *list = json_array();
    for (int i = 0; list && bg_cpu_kernel_tables[i]; i++)
        if (bg_cpu_kernel_tables[i]->supported())
            json_array_append_new(list, json_string(bg_cpu_kernel_tables[i]->isa));
    return list;
}

static void print(const json_t *device, bg_text *text)
{
    const json_t *machine = json_object_get(device, "machine");
    double memory = (double)json_integer_value(json_object_get(machine, "memory_bytes"));
    bg_text_printf(text, "cpu  %s\n", json_string_value(json_object_get(machine, "cpu")));
    bg_text_printf(text, "     threads        %lld\n",
                   (long long)json_integer_value(json_object_get(device, "threads")));
    bg_text_printf(text, "     memory         %.1f GiB\n", memory / (1 << 30));
    bg_text_printf(text, "     bandwidth      %.1f GB/s reading, with those threads\n",
                   json_number_value(json_object_get(device, "bandwidth_bytes_per_s")) / 1e9);
    bg_text_puts(text, "     instructions  ");
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(device, "isas"), i, item)
        bg_text_printf(text, " %s", json_string_value(item));
    bg_text_printf(text, " (used: %s)\n\n", json_string_value(json_object_get(device, "isa")));
    bg_text_printf(text, "     %-10s  %-22s  %s\n", "precision", "one row (decoding)",
                   "several rows (prefill)");
    json_array_foreach(json_object_get(device, "kernels"), i, item) bg_text_printf(
        text, "     %-10s  %-22s  %s\n", json_string_value(json_object_get(item, "precision")),
        json_string_value(json_object_get(item, "one_row")),
        json_string_value(json_object_get(item, "several_rows")));
    bg_text_puts(text,
                 "\nWeights stay packed: one row decodes them in registers, several rows decode "
                 "panels\ninto the cache for the matrix product.\n");
}

bg_status bg_describe_devices(int threads, bool json, char **out, bg_error *err)
{
    *out = NULL;
    bg_json_init();
    bg_backend *backend;
    BG_TRY(bg_backend_open("cpu", threads, &backend, err));
    const int count = backend->ops->threads(backend);
    bg_threads *pool;
    double bandwidth = 0;
    bg_status status = bg_threads_create(count, &pool, err);
    if (status == BG_OK) {
        status = bg_measure_bandwidth(pool, &bandwidth, err);
        bg_threads_free(pool);
    }
    if (status != BG_OK) {
        backend->ops->free(backend);
        return status;
    }
    json_t *device = json_pack("{s:s, s:o, s:i, s:f, s:s, s:o, s:o}", "device", "cpu", "machine",
                               bg_machine_describe(), "threads", count, "bandwidth_bytes_per_s",
                               bandwidth, "isa", backend->ops->isa(backend), "isas", isa_list(),
                               "kernels", kernel_list(backend));
    backend->ops->free(backend);
    if (!device) return bg_fail_memory(err, 4096, "the list of devices");
    bg_text text = {0};
    if (json) {
        json_t *root = json_pack("{s:[O]}", "devices", device);
        char *dump = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
        if (dump) bg_text_printf(&text, "%s\n", dump);
        text.failed |= !dump;
        bg_free(dump);
        json_decref(root);
    } else {
        print(device, &text);
    }
    json_decref(device);
    if (text.failed || !text.data) {
        bg_text_free(&text);
        return bg_fail_memory(err, 4096, "the list of devices");
    }
    *out = text.data;
    return BG_OK;
}
