/* A CUDA backend without a GPU: the CPU's, with a device's memory, energy counter and clock, and
 * with the failures that BITGAUGE_FAKE asks for. The loader takes it where BITGAUGE_CUDA_LIBRARY
 * names it, so that what a "cuda" row goes through can be tested on any machine.
 *
 * BITGAUGE_FAKE is a list of words:
 *   memory=N    the device has N MiB
 *   hidden      the driver does not tell what a process has: cudaMemGetInfo's figures are used
 *   no-energy   there is no counter;   stuck   it does not move
 *   fault=N     the N-th result asked for fails, and everything after it
 *   exit=N      the process ends there
 *   only=NAME   all that only where weights are in that format
 * An embedding takes half a joule, choosing tokens a quarter. */
#include "backend/cpu/cpu.h"
#include "backend/cuda/library.h"
#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 100 << 20 };

static struct {
    bg_backend_ops ops;
    const bg_backend_ops *cpu;
    size_t memory, refused;
    long fault, exits, results;
    bool hidden, no_energy, stuck, check, reached;
    char only[32];
    double joules, opened;
} fake;

/* ---- failures -------------------------------------------------------------------------------- */

static bg_status fault(const char *where, bg_error *err)
{
    return bg_fail(err, BG_ERR_INTERNAL,
                   "the GPU reports \"an illegal memory access was encountered\" "
                   "(cudaErrorIllegalAddress), in %s",
                   where);
}

static bool due(long at)
{
    return fake.reached && at > 0 && fake.results >= at;
}

/* A result is asked for. */
static bg_status result(bg_error *err)
{
    fake.results++;
    if (due(fake.exits)) _exit(9);
    return due(fake.fault) ? fault("what was queued", err) : BG_OK;
}

/* Memory is; `bytes` more than are held. */
static bg_status take(bg_backend *backend, size_t bytes, const char *what, bg_error *err)
{
    bg_usage usage;
    fake.cpu->usage(backend, &usage);
    const size_t left = fake.memory - CONTEXT - usage.held.total;
    if (usage.held.total + bytes <= fake.memory - CONTEXT) return BG_OK;
    fake.refused = bytes;
    return bg_fail(err, BG_ERR_MEMORY,
                   "out of memory on cuda:0: %.1f MiB are wanted for %s, and %.1f of %.1f MiB are "
                   "free",
                   (double)bytes / (1 << 20), what, (double)left / (1 << 20),
                   (double)fake.memory / (1 << 20));
}

/* ---- operations ------------------------------------------------------------------------------ */

static const char *isa(const bg_backend *backend)
{
    (void)backend;
    return "sm_00";
}

static void usage(bg_backend *backend, bg_usage *out)
{
    fake.cpu->usage(backend, out);
    const size_t base = fake.hidden ? 0 : CONTEXT;
    out->device = (bg_device_usage){.name = "Fake GPU",
                                    .total = fake.memory,
                                    .available = fake.memory - CONTEXT - out->held.total,
                                    .source = fake.hidden ? "cudaMemGetInfo" : "nvml",
                                    .used = base + out->held.total,
                                    .peak = base + out->held.peak,
                                    .refused = fake.refused,
                                    .no_energy = fake.no_energy ? "it is not wanted" : NULL};
}

static double joules(bg_backend *backend)
{
    (void)backend;
    return fake.no_energy ? -1 : fake.stuck ? 1 : fake.joules;
}

static double device_seconds(bg_backend *backend)
{
    (void)backend;
    return bg_seconds() - fake.opened;
}

static bg_status weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                               bg_weight **out, bg_error *err)
{
    bg_packed_bytes bytes;
    if (strcmp(fake.only, bg_formats[format].name) == 0) fake.reached = true;
    *out = NULL;
    if (bg_packed_measure(format, source->rows, source->cols, &bytes))
        BG_TRY(take(backend, bytes.total, source->name, err));
    return fake.cpu->weight_create(backend, source, format, out, err);
}

static bg_status act_create(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                            bg_error *err)
{
    *out = NULL;
    BG_TRY(take(backend, rows * cols * sizeof(float), "activations", err));
    return fake.cpu->act_create(backend, rows, cols, half, out, err);
}

static bg_status cache_create(bg_backend *backend, size_t n_layers, size_t n_slots,
                              size_t max_length, size_t n_heads, size_t head_dim, bg_cache **out,
                              bg_error *err)
{
    *out = NULL;
    BG_TRY(take(backend, 2 * sizeof(float) * n_layers * n_slots * max_length * n_heads * head_dim,
                "the key and value cache", err));
    return fake.cpu->cache_create(backend, n_layers, n_slots, max_length, n_heads, head_dim, out,
                                  err);
}

static bg_status embed(bg_backend *backend, const bg_lookup *lookups, size_t n_lookups,
                       size_t n_rows, bg_act *out, bg_error *err)
{
    fake.joules += 0.5;
    return fake.cpu->embed(backend, lookups, n_lookups, n_rows, out, err);
}

static bg_status linear(bg_backend *backend, const bg_linear *args, bg_error *err)
{
    /* Some results earlier, as there may be no linear layer between the last two. */
    if (fake.check && due(fake.fault - 3)) return fault("a linear layer of few rows", err);
    return fake.cpu->linear(backend, args, err);
}

static bg_status logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                        const bg_act *in, size_t n_rows, float *out, bg_error *err)
{
    BG_TRY(result(err));
    return fake.cpu->logits(backend, head, bias, in, n_rows, out, err);
}

static bg_status choose(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                        const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *ids,
                        bg_error *err)
{
    fake.joules += 0.25;
    return fake.cpu->choose(backend, head, bias, in, n_rows, how, ids, err);
}

static bg_status ids_read(bg_backend *backend, bg_ids *ids, size_t n_rows, int32_t *values,
                          bg_error *err)
{
    BG_TRY(result(err));
    return fake.cpu->ids_read(backend, ids, n_rows, values, err);
}

static bg_status synchronize(bg_backend *backend, bg_error *err)
{
    BG_TRY(result(err));
    return fake.cpu->synchronize(backend, err);
}

/* ---- the library ----------------------------------------------------------------------------- */

static int count(bg_error *err)
{
    (void)err;
    return 1;
}

static bg_status describe(int index, bg_cuda_device *out, bg_error *err)
{
    (void)err;
    *out = (bg_cuda_device){.name = "Fake GPU",
                            .major = 9,
                            .multiprocessors = 1 + index,
                            .memory_bytes = (size_t)1 << 30,
                            .free_bytes = (size_t)1 << 30,
                            .driver_version = "580.65.06",
                            .driver = 13000,
                            .runtime = 13000,
                            .copy_bytes_per_s = 1e11};
    return BG_OK;
}

static void read_plan(char *plan)
{
    char *rest = NULL;
    for (char *word = strtok_r(plan, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        long n = 0;
        if (sscanf(word, "memory=%ld", &n) == 1) fake.memory = (size_t)n << 20;
        sscanf(word, "fault=%ld", &fake.fault);
        sscanf(word, "exit=%ld", &fake.exits);
        sscanf(word, "only=%31s", fake.only);
        fake.hidden |= strcmp(word, "hidden") == 0;
        fake.no_energy |= strcmp(word, "no-energy") == 0;
        fake.stuck |= strcmp(word, "stuck") == 0;
    }
}

static bg_status open_fake(int index, bg_backend **out, bg_error *err)
{
    (void)index;
    char plan[256];
    const char *wanted = getenv("BITGAUGE_FAKE");
    snprintf(plan, sizeof plan, "%s", wanted ? wanted : "");
    fake.memory = (size_t)1 << 30;
    read_plan(plan);
    fake.reached = fake.only[0] == '\0';
    fake.check = getenv("BITGAUGE_CUDA_CHECK") != NULL;
    fake.opened = bg_seconds();
    BG_TRY(bg_cpu_open("cpu", 1, out, err));
    fake.cpu = (*out)->ops;
    fake.ops = *fake.cpu;
    fake.ops.name = "cuda";
    fake.ops.isa = isa;
    fake.ops.usage = usage;
    fake.ops.joules = joules;
    fake.ops.device_seconds = device_seconds;
    fake.ops.weight_create = weight_create;
    fake.ops.act_create = act_create;
    fake.ops.cache_create = cache_create;
    fake.ops.embed = embed;
    fake.ops.linear = linear;
    fake.ops.logits = logits;
    fake.ops.queues = true;
    fake.ops.choose = choose;
    fake.ops.ids_read = ids_read;
    fake.ops.synchronize = synchronize;
    (*out)->ops = &fake.ops;
    return BG_OK;
}

__attribute__((visibility("default"))) extern const bg_cuda_library bg_cuda_library_table;
const bg_cuda_library bg_cuda_library_table = {BG_CUDA_ABI, count, describe, open_fake};
