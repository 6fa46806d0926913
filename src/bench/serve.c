/* bg_worker_main: a worker's side of the protocol. Commands come in this order:
 *   device    looks at a GPU; nothing else is asked of that worker
 *   load      opens the device and the model at one precision
 *   evaluate  perplexity, accuracy, generated texts, as the job asks
 *   warm_up   rounds that are not kept
 *   round     one timed round; any number of them
 *   energy    what a pass and a step take, where the device counts it
 *   finish    memory at its peak and at the end
 * Each is answered by the keys that it adds to the run (docs/results.md). */
#include "bench/serve.h"
#include "bench/devices.h"
#include "bench/footprint.h"
#include "bench/generations.h"
#include "bench/memory.h"
#include "bench/tasks.h"
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

/* ---- answers --------------------------------------------------------------------------------- */

static bool send_event(bg_server *w, json_t *event)
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
bool bg_server_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    bg_server *w = context;
    double now = bg_seconds();
    if (now - w->last_progress < 0.1) return true;
    w->last_progress = now;
    return send_event(w, json_pack("{s:s, s:s, s:I, s:I}", "event", "progress", "stage", stage,
                                   "done", (json_int_t)done, "total", (json_int_t)total));
}

/* ---- evaluate -------------------------------------------------------------------------------- */

static bg_status perplexities(bg_server *w, json_t *run, bg_error *err)
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
                                     (bg_progress){bg_server_progress, w}, &result, err));
        json_t *entry = json_pack("{s:s, s:I}", "protocol", bg_protocol_name(protocols[i]),
                                  "max_length", (json_int_t)options.max_length);
        if (entry && protocols[i] == BG_PROTOCOL_SLIDING)
            BG_TRY(bg_json_set(entry, "stride", json_integer(options.stride), err));
        json_t *rest =
            json_pack("{s:I, s:f, s:f, s:f, s:s}", "tokens", (json_int_t)result.tokens, "value",
                      result.value, "nll_per_token", result.nll / (double)result.tokens, "seconds",
                      bg_seconds() - start - result.untimed, "text", w->job.perplexity.text);
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

static bg_status accuracy(bg_server *w, json_t *run, bg_error *err)
{
    bg_accuracy result;
    double start = bg_seconds();
    BG_TRY(bg_classify_measure(w->model, w->tokenizer, w->job.classify.data, w->job.classify.limit,
                               w->job.classify.max_length, w->job.classify.pad,
                               (bg_progress){bg_server_progress, w}, &result, err));
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

static bg_status command_evaluate(bg_server *w, json_t *run, bg_error *err)
{
    const bg_job *job = &w->job;
    bg_status status = BG_OK;
    w->smaller = "a shorter --max-length";
    if (job->perplexity.enabled) status = perplexities(w, run, err);
    if (status == BG_OK && job->classify.enabled) status = accuracy(w, run, err);
    const bg_progress progress = {bg_server_progress, w};
    if (status == BG_OK && job->generate.enabled) {
        w->smaller = "fewer --max-new-tokens";
        status = bg_generations_run(job, w->model, w->tokenizer, progress, run, err);
    }
    if (status == BG_OK && job->tasks.n > 0) {
        w->smaller = "a smaller --task-batch";
        status = bg_tasks_run(job, w->model, w->tokenizer, progress, run, err);
    }
    if (status == BG_ERR_MEMORY) bg_server_explain(w, 0, err);
    return status;
}

/* ---- timing ---------------------------------------------------------------------------------- */

static bg_status start_timing(bg_server *w, int batch, bg_error *err)
{
    return bg_timing_create(w->model, w->job.bench.prompt_tokens, w->job.bench.new_tokens, batch,
                            &w->timing, err);
}

/* The first of half the batch, a quarter of it, ... that a round was possible with; 0: none. */
static int find_fitting_batch(bg_server *w)
{
    bg_round round;
    int batch = w->job.bench.batch;
    for (bool fits = false; !fits && batch > 0;) {
        bg_timing_free(w->timing);
        w->timing = NULL;
        batch /= 2;
        fits = batch > 0 && start_timing(w, batch, NULL) == BG_OK &&
               bg_timing_round(w->timing, &round, NULL) == BG_OK;
    }
    return batch;
}

static bg_status command_warm_up(bg_server *w, json_t *run, bg_error *err)
{
    int rounds;
    bool settled;
    bg_status status = start_timing(w, w->job.bench.batch, err);
    if (status == BG_OK) status = bg_timing_warm_up(w->timing, &rounds, &settled, err);
    if (status == BG_ERR_MEMORY) {
        w->smaller = w->job.bench.batch > 1 ? "a smaller --batch, fewer --prompt-tokens or "
                                              "--new-tokens"
                                            : "fewer --prompt-tokens or --new-tokens";
        bg_server_explain(w, find_fitting_batch(w), err);
    }
    BG_TRY(status);
    BG_TRY(bg_json_set(run, "warmup", json_pack("{s:i, s:b}", "runs", rounds, "settled", settled),
                       err));
    return bg_json_set(run, "prompt_tokens", json_integer((json_int_t)w->timing->prompt_tokens),
                       err);
}

static bg_status command_round(bg_server *w, json_t *run, bg_error *err)
{
    if (!w->timing) return bg_fail(err, BG_ERR_INTERNAL, "worker: a round before warm_up");
    bg_round round;
    BG_TRY(bg_timing_round(w->timing, &round, err));
    BG_TRY(bg_json_set(run, "prefill", json_real(round.prefill), err));
    BG_TRY(bg_json_set(run, "first_token", json_real(round.first_token), err));
    if (round.device_prefill >= 0)
        BG_TRY(bg_json_set(run, "device_prefill", json_real(round.device_prefill), err));
    if (round.device_decode >= 0)
        BG_TRY(bg_json_set(run, "device_decode", json_real(round.device_decode), err));
    return bg_json_set(run, "decode", json_real(round.decode), err);
}

/* run[key] = what `passes` of `count` tokens or sentences each have taken. */
static bg_status add_energy(json_t *run, const char *key, const bg_energy *e, size_t count,
                            const char *each, bg_error *err)
{
    if (e->passes == 0) return BG_OK;
    const double all = (double)e->passes * (double)count;
    return bg_json_set(run, key,
                       json_pack("{s:f, s:f, s:f, s:f}", "joules", e->joules, "seconds", e->seconds,
                                 "mean_watts", e->joules / e->seconds, each, e->joules / all),
                       err);
}

static bg_status command_energy(bg_server *w, json_t *run, bg_error *err)
{
    if (!w->timing) return bg_fail(err, BG_ERR_INTERNAL, "worker: energy before warm_up");
    bg_timing *t = w->timing;
    const bool classifier = w->config.arch->task == BG_TASK_CLASSIFIER;
    bg_energy prefill, decode;
    bg_usage usage;
    BG_TRY(bg_timing_energy(t, &prefill, &decode, err));
    BG_TRY(add_energy(run, "prefill", &prefill, t->batch * (classifier ? 1 : t->prompt_tokens),
                      classifier ? "joules_per_sentence" : "joules_per_token", err));
    BG_TRY(add_energy(run, "decode", &decode, t->batch, "joules_per_token", err));
    w->backend->ops->usage(w->backend, &usage);
    if (!usage.device.name || (prefill.passes > 0 && (classifier || decode.passes > 0)))
        return BG_OK;
    char note[256];
    snprintf(note, sizeof note, "energy was not measured: %.200s",
             usage.device.no_energy ? usage.device.no_energy
                                    : "the GPU's counter did not move while it computed");
    return bg_json_set(run, "note", json_string(note), err);
}

static bg_status command_finish(bg_server *w, json_t *run, bg_error *err)
{
    bg_footprint end;
    if (w->peak_resets)
        BG_TRY(bg_json_set(run, "rss_peak_running", json_integer(bg_peak_resident_bytes()), err));
    bg_footprint_read(w->backend, &end);
    if (end.usage.device.name)
        BG_TRY(bg_json_set(run, "device_available",
                           json_integer((json_int_t)end.usage.device.available), err));
    return bg_json_set(run, "memory", bg_footprint_end(&end), err);
}

/* ---- the loop -------------------------------------------------------------------------------- */

/* Before "load", and in a worker of its own: its process keeps some of the GPU's memory. */
static bg_status command_device(const json_t *request, json_t *run, bg_error *err)
{
    const char *device;
    json_t *gpu;
    BG_TRY(bg_json_string(request, "device", "worker", "", &device, err));
    BG_TRY(bg_describe_gpu(device, &gpu, err));
    return bg_json_set(run, "gpu", gpu, err);
}

static bg_status execute(bg_server *w, json_t *request, json_t *run, bg_error *err)
{
    static const struct {
        const char *name;
        bg_status (*call)(bg_server *w, json_t *run, bg_error *err);
    } commands[] = {
        {"evaluate", command_evaluate}, {"warm_up", command_warm_up}, {"round", command_round},
        {"energy", command_energy},     {"finish", command_finish},
    };
    const char *name;
    BG_TRY(bg_json_string(request, "command", "worker", "", &name, err));
    if (strcmp(name, "device") == 0) return command_device(request, run, err);
    if (strcmp(name, "load") == 0) return bg_server_load(w, request, run, err);
    if (!w->model) return bg_fail(err, BG_ERR_INTERNAL, "worker: \"%.32s\" before load", name);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0) return commands[i].call(w, run, err);
    return bg_fail(err, BG_ERR_INTERNAL, "worker: \"%.32s\" is no command", name);
}

static bool answer(bg_server *w, const char *line, size_t size)
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
    bg_server w = {.out = out};
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
    bg_config_free(&w.config);
    if (w.backend) w.backend->ops->free(w.backend);
    bg_free(w.prompts);
    bg_free(w.tasks);
    json_decref(w.request);
    return ok ? BG_OK : bg_fail(err, BG_ERR_OUTPUT, "worker: the answer could not be sent");
}
