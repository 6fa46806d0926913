/* bg_describe_devices: what this machine has to run on, and with which kernels. */
#include "bench/devices.h"
#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cuda/library.h"
#include "bench/machine.h"
#include "bitgauge/bitgauge.h"
#include "core/alloc.h"
#include "core/json.h"
#include "core/text.h"
#include "quant/format.h"

#include <stdio.h>
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

static void print_kernels(const json_t *device, bg_text *text)
{
    bg_text_printf(text, "     %-10s  %-22s  %s\n", "precision", "one row (decoding)",
                   "several rows (prefill)");
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(device, "kernels"), i, item) bg_text_printf(
        text, "     %-10s  %-22s  %s\n", json_string_value(json_object_get(item, "precision")),
        json_string_value(json_object_get(item, "one_row")),
        json_string_value(json_object_get(item, "several_rows")));
}

static void print_cpu(const json_t *device, bg_text *text)
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
    print_kernels(device, text);
}

static void print_gpu(const json_t *device, bg_text *text)
{
    const double memory = (double)json_integer_value(json_object_get(device, "memory_bytes"));
    const double available = (double)json_integer_value(json_object_get(device, "free_bytes"));
    bg_text_printf(text, "\n%s  %s\n", json_string_value(json_object_get(device, "device")),
                   json_string_value(json_object_get(device, "name")));
    bg_text_printf(text, "     capability     %s, %lld multiprocessors\n",
                   json_string_value(json_object_get(device, "compute_capability")),
                   (long long)json_integer_value(json_object_get(device, "multiprocessors")));
    bg_text_printf(text, "     memory         %.1f GiB, %.1f free\n", memory / (1 << 30),
                   available / (1 << 30));
    const char *version = json_string_value(json_object_get(device, "driver_version"));
    bg_text_printf(text, "     driver         %s%sfor CUDA %s\n", version ? version : "",
                   version ? ", " : "", json_string_value(json_object_get(device, "driver")));
    const json_t *bandwidth = json_object_get(device, "bandwidth_bytes_per_s");
    if (bandwidth)
        bg_text_printf(text,
                       "     bandwidth      %.0f GB/s copying, bytes read and bytes written\n\n",
                       json_number_value(bandwidth) / 1e9);
    else
        bg_text_printf(text, "     bandwidth      not measured: it takes 1 GiB of free memory\n\n");
    print_kernels(device, text);
}

static void print(const json_t *devices, const char *no_gpu, bg_text *text)
{
    size_t i;
    json_t *device;
    json_array_foreach(devices, i, device)(i == 0 ? print_cpu : print_gpu)(device, text);
    bg_text_puts(
        text, "\nWeights stay packed: one row decodes them in registers, several rows a tile or a "
              "panel\nof them at a time for the matrix product.\n");
    if (*no_gpu) bg_text_printf(text, "\ncuda  %s\n", no_gpu);
    if (json_array_size(devices) == 1) bg_text_puts(text, "      Models run on the CPU here.\n");
}

/* The processor, measured with its threads. */
static bg_status describe_cpu(int threads, json_t **out, bg_error *err)
{
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
    if (status == BG_OK)
        *out = json_pack("{s:s, s:o, s:i, s:f, s:s, s:o, s:o}", "device", "cpu", "machine",
                         bg_machine_describe(), "threads", count, "bandwidth_bytes_per_s",
                         bandwidth, "isa", backend->ops->isa(backend), "isas", isa_list(),
                         "kernels", kernel_list(backend));
    backend->ops->free(backend);
    return status != BG_OK || *out ? status : bg_fail_memory(err, 4096, "the list of devices");
}

bg_status bg_describe_gpu(const char *device, json_t **out, bg_error *err)
{
    char capability[32], driver[32];
    bg_cuda_device d;
    int index;
    *out = NULL;
    BG_TRY(bg_cuda_find(device, &index, err));
    BG_TRY(bg_cuda_describe(index, &d, err));
    snprintf(capability, sizeof capability, "%d.%d", d.major, d.minor);
    snprintf(driver, sizeof driver, "%d.%d", d.driver / 1000, d.driver % 1000 / 10);
    json_t *gpu = json_pack("{s:s, s:s, s:s, s:i, s:I, s:s}", "device", device, "name", d.name,
                            "compute_capability", capability, "multiprocessors", d.multiprocessors,
                            "memory_bytes", (json_int_t)d.memory_bytes, "driver", driver);
    *out = gpu;
    if (!gpu) return bg_fail_memory(err, 4096, "a description of the GPU");
    if (*d.driver_version)
        BG_TRY(bg_json_set(gpu, "driver_version", json_string(d.driver_version), err));
    if (d.copy_bytes_per_s <= 0) return BG_OK;
    return bg_json_set(gpu, "bandwidth_bytes_per_s", json_real(d.copy_bytes_per_s), err);
}

/* What it has, and what runs on it. */
static bg_status describe_gpu(int index, json_t **out, bg_error *err)
{
    char name[32];
    bg_backend *backend;
    snprintf(name, sizeof name, "cuda:%d", index);
    BG_TRY(bg_describe_gpu(name, out, err));
    bg_status status = bg_backend_open(name, 1, &backend, err);
    if (status == BG_OK) {
        bg_usage usage;
        backend->ops->usage(backend, &usage);
        json_t *rest =
            json_pack("{s:I, s:s, s:o}", "free_bytes", (json_int_t)usage.device.available, "isa",
                      backend->ops->isa(backend), "kernels", kernel_list(backend));
        if (!rest || json_object_update(*out, rest) != 0)
            status = bg_fail_memory(err, 4096, "the list of devices");
        json_decref(rest);
        backend->ops->free(backend);
    }
    if (status == BG_OK) return BG_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

/* Every device; `no_gpu` says why there is no GPU among them, or that one failed. */
static bg_status describe_all(int threads, json_t *devices, bg_error *no_gpu, bg_error *err)
{
    json_t *device = NULL;
    BG_TRY(describe_cpu(threads, &device, err));
    json_array_append_new(devices, device);
    const int n = bg_cuda_count(no_gpu);
    for (int i = 0; i < n; i++)
        if (describe_gpu(i, &device, no_gpu) == BG_OK)
            json_array_append_new(devices, device);
        else
            bg_error_context(no_gpu, "cuda:%d", i);
    return BG_OK;
}

bg_status bg_describe_devices(int threads, bool json, char **out, bg_error *err)
{
    *out = NULL;
    bg_json_init();
    bg_error no_gpu = {0};
    json_t *devices = json_array();
    if (!devices) return bg_fail_memory(err, 4096, "the list of devices");
    bg_status status = describe_all(threads, devices, &no_gpu, err);
    bg_text text = {0};
    if (status == BG_OK && json) {
        json_t *root = json_pack("{s:O}", "devices", devices);
        if (root && *no_gpu.message)
            json_object_set_new(root, "no_gpu", json_string(no_gpu.message));
        char *dump = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
        if (dump) bg_text_printf(&text, "%s\n", dump);
        text.failed |= !dump;
        bg_free(dump);
        json_decref(root);
    } else if (status == BG_OK) {
        print(devices, no_gpu.message, &text);
    }
    json_decref(devices);
    if (status != BG_OK) return status;
    if (text.failed || !text.data) {
        bg_text_free(&text);
        return bg_fail_memory(err, 4096, "the list of devices");
    }
    *out = text.data;
    return BG_OK;
}
