/* The worker's command "load". */
#include "bench/footprint.h"
#include "bench/machine.h"
#include "bench/memory.h"
#include "bench/remedy.h"
#include "bench/serve.h"
#include "core/clock.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what runs ------------------------------------------------------------------------------- */

/* Distinct names of the kernels that this model's matrices run on. */
static json_t *kernel_names(const bg_server *w)
{
    json_t *list = json_array();
    const bg_format_id formats[] = {w->model->precision, w->model->other};
    for (int several = 0; several < 2 && list; several++)
        for (int i = 0; i < 2; i++) {
            const char *name = w->backend->ops->kernel(w->backend, formats[i], several);
            size_t index;
            json_t *item;
            bool there = false;
            json_array_foreach(list, index, item) there |=
                strcmp(json_string_value(item), name) == 0;
            if (!there) json_array_append_new(list, json_string(name));
        }
    return list;
}

static json_t *notes(const bg_server *w)
{
    const bg_format *precision = &bg_formats[w->model->precision];
    const char *other = bg_formats[w->model->other].name;
    json_t *list = json_array();
    char text[256] = "";
    if (precision->bits == 16)
        snprintf(text, sizeof text,
                 "weights are %s, activations and sums fp32; a GPU rounds activations to 16 bits "
                 "where it multiplies several rows",
                 precision->name);
    else if (precision->bits < 16)
        snprintf(text, sizeof text,
                 "embeddings, norms, biases and the output head are not quantized (%s)", other);
    if (list && *text) json_array_append_new(list, json_string(text));
    snprintf(text, sizeof text,
             bg_format_has_outliers(w->model->precision)
                 ? "activations are quantized to int8 token by token; columns with an entry of %g "
                   "or more are not"
                 : "activations are quantized to int8 token by token, all of them",
             (double)precision->outlier_threshold);
    if (list && bg_format_is_int8(w->model->precision))
        json_array_append_new(list, json_string(text));
    return list;
}

static bg_status describe(bg_server *w, json_t *run, bg_error *err)
{
    const bg_model *m = w->model;
    bg_usage usage;
    w->backend->ops->usage(w->backend, &usage);
    if (usage.device.name)
        BG_TRY(bg_json_set(run, "device_name", json_string(usage.device.name), err));
    BG_TRY(bg_json_set(run, "threads", json_integer(w->backend->ops->threads(w->backend)), err));
    BG_TRY(bg_json_set(run, "isa", json_string(w->backend->ops->isa(w->backend)), err));
    BG_TRY(bg_json_set(run, "kernels", kernel_names(w), err));
    json_t *list = notes(w);
    if (json_array_size(list) > 0)
        BG_TRY(bg_json_set(run, "notes", list, err));
    else
        json_decref(list);
    BG_TRY(bg_json_set(run, "weights_bytes", json_integer((json_int_t)m->weights_bytes), err));
    return bg_json_set(run, "weights",
                       json_pack("{s:I, s:I, s:I}", "quantized_bytes",
                                 (json_int_t)m->quantized_bytes, "unquantized_bytes",
                                 (json_int_t)(m->weights_bytes - m->quantized_bytes), "read_bytes",
                                 (json_int_t)bg_model_read_bytes(m)),
                       err);
}

/* ---- loading --------------------------------------------------------------------------------- */

void bg_server_explain(const bg_server *w, int fitting_batch, bg_error *err)
{
    bg_usage usage;
    if (!w->backend) return;
    w->backend->ops->usage(w->backend, &usage);
    if (!usage.device.name) return;
    /* While it is loaded, what the model has taken so far may be taken by it at a lower precision.
     */
    const double free_bytes = (double)(usage.device.available + usage.held.total);
    bg_explain_shortage(&(bg_shortage){.config = &w->config,
                                       .precision = w->precision,
                                       .room = w->model ? -1 : free_bytes,
                                       .options = w->smaller,
                                       .fitting_batch = fitting_batch},
                        err);
}

/* Refused before memory is filled: the system would rather swap, or kill, than say no. */
static bg_status check_memory(const bg_server *w, bg_error *err)
{
    bg_usage usage;
    w->backend->ops->usage(w->backend, &usage);
    const bool own = usage.device.name;
    char need[BG_AMOUNT], there[BG_AMOUNT];
    const double wanted = (double)bg_model_estimate(&w->config, w->precision);
    const double available = own ? (double)usage.device.available : (double)bg_available_memory();
    if (available <= 0 || wanted <= available) return BG_OK;
    return bg_fail(err, BG_ERR_MEMORY,
                   "out of memory%s%s: the weights take about %s at %s, and %s are available%s",
                   own ? " on " : "", own ? w->job.device : "", bg_amount(need, wanted),
                   w->precision->name, bg_amount(there, available),
                   own ? "" : "; choose a lower precision or free memory");
}

static bg_status load_model(bg_server *w, bg_error *err)
{
    bg_checkpoint *checkpoint;
    BG_TRY(w->job.random_weights ? bg_checkpoint_open_config(w->job.model, &checkpoint, err)
                                 : bg_checkpoint_open(w->job.model, &checkpoint, err));
    bg_status status = bg_config_load(checkpoint, &w->config, err);
    if (status == BG_OK) status = check_memory(w, err);
    if (status == BG_OK)
        status = bg_model_load(w->backend, checkpoint, w->job.random_weights, w->precision,
                               (bg_progress){bg_server_progress, w}, &w->model, err);
    bg_checkpoint_close(checkpoint);
    if (status == BG_ERR_MEMORY) bg_server_explain(w, 0, err);
    return status;
}

static bg_status open_device(bg_server *w, json_t *request, bg_error *err)
{
    const char *precision;
    w->request = json_incref(request);
    BG_TRY(bg_json_string(request, "precision", "worker", "", &precision, err));
    BG_TRY(bg_job_from_json(json_object_get(request, "job"), &w->job, &w->prompts, &w->tasks, err));
    w->precision = bg_format_by_name(precision);
    if (!w->precision)
        return bg_fail(err, BG_ERR_USAGE, "precision \"%.32s\" is not known", precision);
    if (json_is_true(json_object_get(request, "check"))) setenv("BITGAUGE_CUDA_CHECK", "1", 1);
    /* The tokenizer and the device are no part of the model's memory, nor of its growth: they come
     * first. */
    if (w->job.perplexity.enabled || w->job.classify.enabled || w->job.generate.enabled ||
        w->job.tasks.n > 0)
        BG_TRY(bg_tokenizer_open(w->job.model, &w->tokenizer, err));
    return bg_backend_open(w->job.device, w->job.threads, &w->backend, err);
}

bg_status bg_server_load(bg_server *w, json_t *request, json_t *run, bg_error *err)
{
    if (w->backend) return bg_fail(err, BG_ERR_INTERNAL, "worker: a model is loaded already");
    bg_footprint before, loaded;
    BG_TRY(open_device(w, request, err));
    bg_return_memory();
    bg_reset_peak();
    bg_footprint_read(w->backend, &before);
    const double start = bg_seconds();
    BG_TRY(load_model(w, err));
    const double seconds = bg_seconds() - start;
    bg_footprint_read(w->backend, &loaded);
    const int64_t peak = bg_peak_resident_bytes();
    w->peak_resets = bg_reset_peak();
    BG_TRY(describe(w, run, err));
    BG_TRY(bg_json_set(run, "load_seconds", json_real(seconds), err));
    BG_TRY(bg_json_set(run, "quantize_seconds", json_real(w->model->quantize_seconds), err));
    BG_TRY(bg_json_set(run, "parameters", json_integer(w->model->n_parameters), err));
    json_t *memory =
        json_pack("{s:I, s:I, s:I}", "rss_before", (json_int_t)before.rss, "rss_loaded",
                  (json_int_t)loaded.rss, "rss_peak_loading", (json_int_t)peak);
    BG_TRY(bg_json_set(run, "memory", memory, err));
    json_t *rest = bg_footprint_loading(&before, &loaded);
    const bool ok = rest && json_object_update(memory, rest) == 0;
    json_decref(rest);
    return ok ? BG_OK : bg_fail_memory(err, 256, "memory figures");
}
