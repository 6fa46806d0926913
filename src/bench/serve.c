/* bg_worker_main: a worker's side of the protocol. Commands come in this order:
 *   load      opens the device and the model at one precision
 *   evaluate  perplexity, accuracy, generated texts, as the job asks
 *   warm_up   rounds that are not kept
 *   round     one timed round; any number of them
 *   finish    memory at its peak
 * Each is answered by the keys that it adds to the run (docs/results.md). */
#include "bench/generations.h"
#include "bench/job.h"
#include "bench/machine.h"
#include "bench/memory.h"
#include "bench/tasks.h"
#include "bench/timing.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/json.h"
#include "eval/classify.h"
#include "eval/perplexity.h"
#include "tokenizer/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int out;
    json_t *request; /* of the load command: holds the job's strings */
    const char **prompts;
    bg_named_task *tasks;
    bg_job job;
    bg_backend *backend;
    bg_model *model;
    bg_tokenizer *tokenizer;
    bg_timing *timing;
    int64_t peak_loading;
    bool peak_resets; /* so that the peak at the end is that of running */
    double last_progress;
} worker;

/* ---- answers --------------------------------------------------------------------------------- */

static bool send_event(worker *w, json_t *event)
{
    char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;
    json_decref(event);
    if (!text) return false;
    size_t n = strlen(text);
    text[n++] = '\n';
    const char *p = text;
    bool ok = true;
    while (n > 0 && ok) {
        ssize_t written = write(w->out, p, n);
        if (written < 0 && errno == EINTR) continue;
        ok = written > 0;
        if (ok) {
            p += written;
            n -= (size_t)written;
        }
    }
    bg_free(text);
    return ok;
}

/* Ten times a second at most: progress costs the parent more than it is worth. */
static bool report_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    worker *w = context;
    double now = bg_seconds();
    if (now - w->last_progress < 0.1) return true;
    w->last_progress = now;
    return send_event(w, json_pack("{s:s, s:s, s:I, s:I}", "event", "progress", "stage", stage,
                                   "done", (json_int_t)done, "total", (json_int_t)total));
}

/* ---- load ------------------------------------------------------------------------------------ */

/* Distinct names of the kernels that this model's matrices run on. */
static json_t *kernel_names(const worker *w)
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

static json_t *notes(const worker *w)
{
    const bg_format *precision = &bg_formats[w->model->precision];
    const char *other = bg_formats[w->model->other].name;
    json_t *list = json_array();
    char text[256] = "";
    if (precision->bits == 16)
        snprintf(text, sizeof text,
                 "weights are %s and widened in registers; activations and sums are fp32",
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

static bg_status describe(worker *w, json_t *run, bg_error *err)
{
    const bg_model *m = w->model;
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
                       json_pack("{s:I, s:I}", "quantized_bytes", (json_int_t)m->quantized_bytes,
                                 "unquantized_bytes",
                                 (json_int_t)(m->weights_bytes - m->quantized_bytes)),
                       err);
}

/* Refused before memory is filled: the system would rather swap, or kill, than say no. */
static bg_status check_memory(const bg_checkpoint *checkpoint, const bg_format *format,
                              bg_error *err)
{
    bg_config config;
    bg_status status = bg_config_load(checkpoint, &config, err);
    if (status != BG_OK) {
        bg_config_free(&config);
        return status;
    }
    double wanted = (double)bg_model_estimate(&config, format);
    double available = (double)bg_available_memory();
    bg_config_free(&config);
    if (available <= 0 || wanted <= available) return BG_OK;
    return bg_fail(
        err, BG_ERR_MEMORY,
        "out of memory: the weights take about %.1f GiB at %s, and %.1f GiB are available; "
        "choose a lower precision or free memory",
        wanted / (1 << 30), format->name, available / (1 << 30));
}

static bg_status load_model(worker *w, const char *precision, bg_error *err)
{
    const bg_format *format = bg_format_by_name(precision);
    if (!format) return bg_fail(err, BG_ERR_USAGE, "precision \"%.32s\" is not known", precision);
    BG_TRY(bg_backend_open(w->job.device, w->job.threads, &w->backend, err));
    bg_checkpoint *checkpoint;
    BG_TRY(w->job.random_weights ? bg_checkpoint_open_config(w->job.model, &checkpoint, err)
                                 : bg_checkpoint_open(w->job.model, &checkpoint, err));
    bg_progress progress = {report_progress, w};
    bg_status status = check_memory(checkpoint, format, err);
    if (status == BG_OK)
        status = bg_model_load(w->backend, checkpoint, w->job.random_weights, format, progress,
                               &w->model, err);
    bg_checkpoint_close(checkpoint);
    return status;
}

static bg_status command_load(worker *w, json_t *request, json_t *run, bg_error *err)
{
    if (w->model) return bg_fail(err, BG_ERR_INTERNAL, "worker: a model is loaded already");
    const char *precision;
    w->request = json_incref(request);
    BG_TRY(bg_json_string(request, "precision", "worker", "", &precision, err));
    BG_TRY(bg_job_from_json(json_object_get(request, "job"), &w->job, &w->prompts, &w->tasks, err));
    /* The tokenizer is no part of the model's memory, nor of its growth: it comes first. */
    if (w->job.perplexity.enabled || w->job.classify.enabled || w->job.generate.enabled ||
        w->job.tasks.n > 0)
        BG_TRY(bg_tokenizer_open(w->job.model, &w->tokenizer, err));
    bg_return_memory();
    bg_reset_peak();
    int64_t before = bg_resident_bytes();
    double start = bg_seconds();
    BG_TRY(load_model(w, precision, err));
    double seconds = bg_seconds() - start;
    int64_t loaded = bg_resident_bytes();
    w->peak_loading = bg_peak_resident_bytes();
    w->peak_resets = bg_reset_peak();
    BG_TRY(describe(w, run, err));
    BG_TRY(bg_json_set(run, "load_seconds", json_real(seconds), err));
    BG_TRY(bg_json_set(run, "quantize_seconds", json_real(w->model->quantize_seconds), err));
    BG_TRY(bg_json_set(run, "parameters", json_integer(w->model->n_parameters), err));
    return bg_json_set(run, "memory",
                       json_pack("{s:I, s:I, s:I}", "rss_before", (json_int_t)before, "rss_loaded",
                                 (json_int_t)loaded, "rss_peak_loading",
                                 (json_int_t)w->peak_loading),
                       err);
}

/* ---- evaluate -------------------------------------------------------------------------------- */

static bg_status perplexities(worker *w, json_t *run, bg_error *err)
{
    static const bg_protocol protocols[] = {BG_PROTOCOL_LINES, BG_PROTOCOL_SLIDING,
                                            BG_PROTOCOL_CHUNKS};
    json_t *list = json_array();
    BG_TRY(bg_json_set(run, "perplexity", list, err));
    for (int i = 0; i < 3; i++) {
        if (!(w->job.perplexity.protocols & protocols[i])) continue;
        bg_perplexity_options options = {protocols[i], w->job.perplexity.max_length,
                                         w->job.perplexity.stride, w->job.perplexity.limit,
                                         w->job.perplexity.max_tokens};
        bg_perplexity result;
        double start = bg_seconds();
        BG_TRY(bg_perplexity_complete(&w->model->config, &options, err));
        BG_TRY(bg_perplexity_measure(w->model, w->tokenizer, w->job.perplexity.text, &options,
                                     (bg_progress){report_progress, w}, &result, err));
        json_t *entry = json_pack("{s:s, s:I}", "protocol", bg_protocol_name(protocols[i]),
                                  "max_length", (json_int_t)options.max_length);
        if (entry && protocols[i] == BG_PROTOCOL_SLIDING)
            BG_TRY(bg_json_set(entry, "stride", json_integer(options.stride), err));
        json_t *rest =
            json_pack("{s:I, s:f, s:f, s:f, s:s}", "tokens", (json_int_t)result.tokens, "value",
                      result.value, "nll_per_token", result.nll / (double)result.tokens, "seconds",
                      bg_seconds() - start, "text", w->job.perplexity.text);
        bool ok = entry && rest && json_object_update(entry, rest) == 0;
        json_decref(rest);
        if (!ok || json_array_append(list, entry) != 0) {
            json_decref(entry);
            return bg_fail_memory(err, 256, "a perplexity");
        }
        json_decref(entry);
    }
    return BG_OK;
}

static bg_status accuracy(worker *w, json_t *run, bg_error *err)
{
    bg_accuracy result;
    double start = bg_seconds();
    BG_TRY(bg_classify_measure(w->model, w->tokenizer, w->job.classify.data, w->job.classify.limit,
                               w->job.classify.max_length, w->job.classify.pad,
                               (bg_progress){report_progress, w}, &result, err));
    bg_status status =
        bg_json_set(run, "accuracy",
                    json_pack("{s:I, s:I, s:f, s:i, s:b, s:f, s:s}", "correct",
                              (json_int_t)result.correct, "total", (json_int_t)result.total,
                              "value", (double)result.correct / (double)result.total, "max_length",
                              w->job.classify.max_length, "padded", w->job.classify.pad, "seconds",
                              bg_seconds() - start, "data", w->job.classify.data),
                    err);
    bg_accuracy_free(&result);
    return status;
}

static bg_status command_evaluate(worker *w, json_t *run, bg_error *err)
{
    const bg_job *job = &w->job;
    if (job->perplexity.enabled) BG_TRY(perplexities(w, run, err));
    if (job->classify.enabled) BG_TRY(accuracy(w, run, err));
    if (job->generate.enabled)
        BG_TRY(bg_generations_run(job, w->model, w->tokenizer, (bg_progress){report_progress, w},
                                  run, err));
    if (job->tasks.n > 0)
        BG_TRY(
            bg_tasks_run(job, w->model, w->tokenizer, (bg_progress){report_progress, w}, run, err));
    return BG_OK;
}

/* ---- timing ---------------------------------------------------------------------------------- */

static bg_status command_warm_up(worker *w, json_t *run, bg_error *err)
{
    BG_TRY(bg_timing_create(w->model, w->job.bench.prompt_tokens, w->job.bench.new_tokens,
                            w->job.bench.batch, &w->timing, err));
    int rounds;
    bool settled;
    BG_TRY(bg_timing_warm_up(w->timing, &rounds, &settled, err));
    BG_TRY(bg_json_set(run, "warmup", json_pack("{s:i, s:b}", "runs", rounds, "settled", settled),
                       err));
    return bg_json_set(run, "prompt_tokens", json_integer((json_int_t)w->timing->prompt_tokens),
                       err);
}

static bg_status command_round(worker *w, json_t *run, bg_error *err)
{
    if (!w->timing) return bg_fail(err, BG_ERR_INTERNAL, "worker: a round before warm_up");
    bg_round round;
    BG_TRY(bg_timing_round(w->timing, &round, err));
    BG_TRY(bg_json_set(run, "prefill", json_real(round.prefill), err));
    BG_TRY(bg_json_set(run, "first_token", json_real(round.first_token), err));
    return bg_json_set(run, "decode", json_real(round.decode), err);
}

static bg_status command_finish(worker *w, json_t *run, bg_error *err)
{
    if (!w->peak_resets) return BG_OK;
    return bg_json_set(run, "rss_peak_running", json_integer(bg_peak_resident_bytes()), err);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bg_status execute(worker *w, json_t *request, json_t *run, bg_error *err)
{
    static const struct {
        const char *name;
        bg_status (*call)(worker *w, json_t *run, bg_error *err);
    } commands[] = {
        {"evaluate", command_evaluate},
        {"warm_up", command_warm_up},
        {"round", command_round},
        {"finish", command_finish},
    };
    const char *name;
    BG_TRY(bg_json_string(request, "command", "worker", "", &name, err));
    if (strcmp(name, "load") == 0) return command_load(w, request, run, err);
    if (!w->model) return bg_fail(err, BG_ERR_INTERNAL, "worker: \"%.32s\" before load", name);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0) return commands[i].call(w, run, err);
    return bg_fail(err, BG_ERR_INTERNAL, "worker: \"%.32s\" is no command", name);
}

static bool answer(worker *w, const char *line, size_t size)
{
    bg_error err = {0};
    json_t *request = NULL, *run = json_object();
    bg_status status = run ? bg_json_parse(line, size, "worker", &request, &err)
                           : bg_fail_memory(&err, 64, "an answer");
    if (status == BG_OK) status = execute(w, request, run, &err);
    json_decref(request);
    if (status == BG_OK) return send_event(w, json_pack("{s:s, s:o}", "event", "done", "run", run));
    json_decref(run);
    return send_event(w, json_pack("{s:s, s:i, s:s}", "event", "error", "status", (int)status,
                                   "message", err.message));
}

bg_status bg_worker_main(int in, int out, bg_error *err)
{
    bg_json_init();
    worker w = {.out = out};
    FILE *input = fdopen(dup(in), "r");
    if (!input)
        return bg_fail(err, BG_ERR_FILE, "worker: cannot read commands: %s", strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    bool ok = true;
    while (ok && (n = getline(&line, &capacity, input)) > 0) ok = answer(&w, line, (size_t)n);
    free(line);
    fclose(input);
    bg_timing_free(w.timing);
    bg_tokenizer_close(w.tokenizer);
    bg_model_free(w.model);
    if (w.backend) w.backend->ops->free(w.backend);
    bg_free(w.prompts);
    bg_free(w.tasks);
    json_decref(w.request);
    return ok ? BG_OK : bg_fail(err, BG_ERR_OUTPUT, "worker: the answer could not be sent");
}
