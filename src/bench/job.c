#include "bench/job.h"

#include "core/alloc.h"
#include "eval/task.h"
#include "eval/words.h"
#include "quant/format.h"

#include <math.h>
#include <string.h>

static const char *const default_prompts[] = {
    "The capital of France is",
    "Once upon a time, in a land far, far away,",
    "To be or not to be, that is the",
    "The future of AI is",
};

const char *const *bg_precision_names(void)
{
    static const char *names[BG_FORMAT_COUNT + 1];
    for (int i = 0; i < BG_FORMAT_COUNT; i++) names[i] = bg_formats[i].name;
    return names;
}

/* Those that run where none is named. */
static const char *const *usual_precisions(size_t *n)
{
    static const char *names[BG_FORMAT_COUNT];
    *n = 0;
    for (int i = 0; i < BG_FORMAT_COUNT; i++)
        if (!bg_formats[i].on_request) names[(*n)++] = bg_formats[i].name;
    return names;
}

const char *const *bg_task_names(void)
{
    static const char *names[BG_EVAL_TASKS + 1];
    for (size_t i = 0; i < BG_EVAL_TASKS; i++) names[i] = bg_eval_tasks[i].name;
    return names;
}

void bg_job_defaults(bg_job *job)
{
    size_t n;
    const char *const *precisions = usual_precisions(&n);
    *job = (bg_job){
        .precisions = precisions,
        .n_precisions = n,
        .device = "cpu",
        .bench = {.new_tokens = 50, .batch = 1, .runs = 7},
        .perplexity = {.protocols = BG_PROTOCOL_LINES | BG_PROTOCOL_SLIDING, .limit = 200},

        .generate = {.prompts = default_prompts,
                     .n_prompts = sizeof default_prompts / sizeof *default_prompts,
                     .max_new_tokens = 50,
                     .top_p = 1},
        .tasks = {.batch = 8},
    };
}

/* The tasks as [name, data] pairs. */
static json_t *tasks_to_json(const bg_job *j)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < j->tasks.n; i++) {
        json_t *pair = json_pack("[s, s]", j->tasks.items[i].name, j->tasks.items[i].data);
        if (json_array_append_new(list, pair) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *main_to_json(const bg_job *j)
{
    json_t *prompts = json_array();
    for (size_t i = 0; prompts && i < j->generate.n_prompts; i++)
        if (json_array_append_new(prompts, json_string(j->generate.prompts[i])) != 0) {
            json_decref(prompts);
            return NULL;
        }
    return json_pack(
        "{s:s, s:b, s:s, s:i, s:{s:b, s:i, s:i, s:i, s:i}, s:{s:b, s:s*, s:i, s:i, s:i, s:I, s:I}, "
        "s:{s:b, s:s*, s:I, s:i, s:b}, s:{s:b, s:o, s:s*, s:i, s:b, s:f, s:i, s:f, s:I}}",
        "model", j->model, "random_weights", j->random_weights, "device", j->device, "threads",
        j->threads, "bench", "enabled", j->bench.enabled, "prompt_tokens", j->bench.prompt_tokens,
        "new_tokens", j->bench.new_tokens, "batch", j->bench.batch, "runs", j->bench.runs,
        "perplexity", "enabled", j->perplexity.enabled, "text", j->perplexity.text, "protocols",
        (int)j->perplexity.protocols, "max_length", j->perplexity.max_length, "stride",
        j->perplexity.stride, "limit", (json_int_t)j->perplexity.limit, "max_tokens",
        (json_int_t)j->perplexity.max_tokens, "classify", "enabled", j->classify.enabled, "data",
        j->classify.data, "limit", (json_int_t)j->classify.limit, "max_length",
        j->classify.max_length, "pad", j->classify.pad, "generate", "enabled", j->generate.enabled,
        "prompts", prompts, "image", j->generate.image, "max_new_tokens",
        j->generate.max_new_tokens, "stop_at_eos", j->generate.stop_at_eos, "temperature",
        j->generate.temperature, "top_k", j->generate.top_k, "top_p", j->generate.top_p, "seed",
        (json_int_t)j->generate.seed);
}

json_t *bg_job_to_json(const bg_job *j)
{
    json_t *job = main_to_json(j);
    json_t *tasks = json_pack("{s:o, s:I, s:i}", "items", tasks_to_json(j), "limit",
                              (json_int_t)j->tasks.limit, "batch", j->tasks.batch);
    if (job && tasks && json_object_set(job, "tasks", tasks) == 0) {
        json_decref(tasks);
        return job;
    }
    json_decref(job);
    json_decref(tasks);
    return NULL;
}

static bg_status tasks_from_json(const json_t *json, bg_job *out, bg_named_task **tasks,
                                 bg_error *err)
{
    const json_t *object = json_object_get(json, "tasks"), *list = json_object_get(object, "items");
    size_t n = json_array_size(list);
    bg_named_task *items = bg_calloc(n + 1, sizeof *items);
    *tasks = items;
    if (!items) return bg_fail_memory(err, n * sizeof *items, "tasks");
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(list, i);
        items[i].name = json_string_value(json_array_get(pair, 0));
        items[i].data = json_string_value(json_array_get(pair, 1));
        if (!items[i].name || !items[i].data)
            return bg_fail(err, BG_ERR_INTERNAL, "worker: a task is not understood");
    }
    out->tasks.items = items;
    out->tasks.n = n;
    out->tasks.limit = json_integer_value(json_object_get(object, "limit"));
    out->tasks.batch = (int)json_integer_value(json_object_get(object, "batch"));
    return BG_OK;
}

bg_status bg_job_from_json(const json_t *json, bg_job *out, const char ***prompts,
                           bg_named_task **tasks, bg_error *err)
{
    json_error_t problem;
    json_t *list = NULL;
    int random_weights, bench, perplexity, classify, pad, generate, stop_at_eos, protocols;
    json_int_t limit, max_tokens, data_limit, seed;
    bg_job j = {0};
    *prompts = NULL;
    *tasks = NULL;
    if (json_unpack_ex((json_t *)json, &problem, 0,
                       "{s:s, s:b, s:s, s:i, s:{s:b, s:i, s:i, s:i, s:i}, "
                       "s:{s:b, s?s, s:i, s:i, s:i, s:I, s:I}, s:{s:b, s?s, s:I, s:i, s:b}, "
                       "s:{s:b, s:o, s?s, s:i, s:b, s:F, s:i, s:F, s:I}}",
                       "model", &j.model, "random_weights", &random_weights, "device", &j.device,
                       "threads", &j.threads, "bench", "enabled", &bench, "prompt_tokens",
                       &j.bench.prompt_tokens, "new_tokens", &j.bench.new_tokens, "batch",
                       &j.bench.batch, "runs", &j.bench.runs, "perplexity", "enabled", &perplexity,
                       "text", &j.perplexity.text, "protocols", &protocols, "max_length",
                       &j.perplexity.max_length, "stride", &j.perplexity.stride, "limit", &limit,
                       "max_tokens", &max_tokens, "classify", "enabled", &classify, "data",
                       &j.classify.data, "limit", &data_limit, "max_length", &j.classify.max_length,
                       "pad", &pad, "generate", "enabled", &generate, "prompts", &list, "image",
                       &j.generate.image, "max_new_tokens", &j.generate.max_new_tokens,
                       "stop_at_eos", &stop_at_eos, "temperature", &j.generate.temperature, "top_k",
                       &j.generate.top_k, "top_p", &j.generate.top_p, "seed", &seed) != 0)
        return bg_fail(err, BG_ERR_INTERNAL, "worker: the job is not understood: %s", problem.text);
    j.random_weights = random_weights;
    j.bench.enabled = bench;
    j.perplexity.enabled = perplexity;
    j.perplexity.protocols = (unsigned)protocols;
    j.perplexity.limit = limit;
    j.perplexity.max_tokens = max_tokens;
    j.classify.enabled = classify;
    j.classify.limit = data_limit;
    j.classify.pad = pad;
    j.generate.enabled = generate;
    j.generate.stop_at_eos = stop_at_eos;
    j.generate.seed = (uint64_t)seed;
    size_t n = json_array_size(list);
    const char **strings = bg_calloc(n, sizeof *strings);
    if (!strings) return bg_fail_memory(err, n * sizeof *strings, "prompts");
    for (size_t i = 0; i < n; i++)
        if (!(strings[i] = json_string_value(json_array_get(list, i)))) strings[i] = "";
    j.generate.prompts = strings;
    j.generate.n_prompts = n;
    *prompts = strings;
    *out = j;
    BG_TRY(tasks_from_json(json, out, tasks, err));
    return bg_job_check(out, err);
}

/* The results are JSON, which is UTF-8; what goes into them must be, too. */
static bg_status check_text(const char *text, const char *what, bg_error *err)
{
    if (!text || bg_is_utf8(text, strlen(text))) return BG_OK;
    return bg_fail(err, BG_ERR_USAGE, "%s is not valid UTF-8: \"%s\"; write or rename it in UTF-8",
                   what, text);
}

bg_status bg_job_check(const bg_job *j, bg_error *err)
{
    if (!j->model) return bg_fail(err, BG_ERR_USAGE, "no model was named");
    BG_TRY(check_text(j->model, "the model's path", err));
    BG_TRY(check_text(j->device, "the device", err));
    if (j->perplexity.enabled) BG_TRY(check_text(j->perplexity.text, "the text's path", err));
    if (j->classify.enabled) BG_TRY(check_text(j->classify.data, "the data's path", err));
    for (size_t i = 0; i < j->tasks.n; i++)
        BG_TRY(check_text(j->tasks.items[i].data, "a path", err));
    if (j->tasks.limit < 0 || j->tasks.batch < 0 || j->tasks.batch > 4096)
        return bg_fail(err, BG_ERR_USAGE,
                       "tasks: the limit must not be negative, and the batch from 0 to 4096");
    for (size_t i = 0; j->generate.enabled && i < j->generate.n_prompts; i++)
        BG_TRY(check_text(j->generate.prompts[i], "a prompt", err));
    if (j->threads < 0 || j->threads > 4096)
        return bg_fail(err, BG_ERR_USAGE, "--threads must be from 0 (all) to 4096");
    if (j->bench.enabled && (j->bench.prompt_tokens < 0 || j->bench.new_tokens < 1 ||
                             j->bench.batch < 1 || j->bench.runs < 1))
        return bg_fail(err, BG_ERR_USAGE,
                       "bench: new tokens, batch and runs must be at least 1, and prompt tokens "
                       "not negative");
    if (j->perplexity.enabled && (!j->perplexity.text || !j->perplexity.protocols ||
                                  j->perplexity.max_length < 0 || j->perplexity.stride < 0))
        return bg_fail(err, BG_ERR_USAGE,
                       "perplexity needs a text and a protocol; lengths must not "
                       "be negative");
    if (j->classify.enabled &&
        (!j->classify.data || (j->classify.max_length != 0 && j->classify.max_length < 3)))
        return bg_fail(err, BG_ERR_USAGE,
                       "classify needs labelled data and a max length of at least 3");
    const double t = j->generate.temperature, p = j->generate.top_p;
    if (j->generate.enabled &&
        (j->generate.n_prompts == 0 || j->generate.max_new_tokens < 1 || !(t >= 0) || isinf(t) ||
         j->generate.top_k < 0 || !(p > 0 && p <= 1)))
        return bg_fail(
            err, BG_ERR_USAGE,
            "generate needs a prompt, at least 1 new token, a temperature and top-k of 0 "
            "or more, and a top-p over 0 and up to 1");
    return BG_OK;
}
