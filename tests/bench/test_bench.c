/* Statistics, memory figures, timing rounds, jobs on their way to a worker. */
#include "test.h"

#include "bench/footprint.h"
#include "bench/job.h"
#include "bench/machine.h"
#include "bench/memory.h"
#include "bench/remedy.h"
#include "bench/results.h"
#include "bench/stats.h"
#include "bench/timing.h"
#include "checkpoint/checkpoint.h"
#include "core/alloc.h"

#include <stdlib.h>

static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

static void test_statistics(void)
{
    bg_estimate e;
    const double one[1] = {3}, odd[5] = {5, 1, 4, 2, 3}, even[4] = {4, 1, 3, 2};
    OK(bg_estimate_median(one, 1, &e, &err));
    CHECK(e.median == 3 && e.low == 3 && e.high == 3, "one sample");
    OK(bg_estimate_median(odd, 5, &e, &err));
    CHECK(e.median == 3 && e.low >= 1 && e.low <= 3 && e.high >= 3 && e.high <= 5, "odd");
    OK(bg_estimate_median(even, 4, &e, &err));
    CHECK(e.median == 2.5, "even");
    /* Of n samples the interval of the median reaches about 1.96 sqrt(n)/2 ranks to each side. */
    double many[101];
    for (int i = 0; i < 101; i++) many[i] = i * 37 % 101;
    OK(bg_estimate_median(many, 101, &e, &err));
    CHECK(e.median == 50 && fabs(e.low - 40) <= 2 && fabs(e.high - 60) <= 2, "%g to %g", e.low,
          e.high);
    const double a[3] = {2, 4, 8}, b[3] = {1, 2, 2};
    OK(bg_estimate_ratio(a, b, 3, &e, &err));
    CHECK(e.median == 2 && e.low == 2 && e.high == 4, "%g %g %g", e.median, e.low, e.high);
    bg_alloc_fail_after(0);
    CHECK(bg_estimate_median(odd, 5, &e, &err) == BG_ERR_MEMORY, "out of memory");
    bg_alloc_fail_after(-1);
}

static void test_memory(void)
{
    enum { SIZE = 64 << 20 };
    int64_t before = bg_resident_bytes();
    CHECK(before > 0, "%lld", (long long)before);
    bool resets = bg_reset_peak();
    char *block = bg_alloc_aligned(SIZE);
    memset(block, 1, SIZE);
    int64_t held = bg_resident_bytes();
    CHECK(held - before > SIZE * 9 / 10, "%lld more", (long long)(held - before));
    bg_free_aligned(block, SIZE);
    CHECK(bg_resident_bytes() < held - SIZE * 9 / 10, "given back at once");
    CHECK(bg_peak_resident_bytes() >= held - (4 << 20), "the peak stays");
    if (!resets || !bg_reset_peak())
        SKIP("this system cannot reset the peak");
    else
        CHECK(bg_peak_resident_bytes() < held - SIZE / 2, "the peak begins anew");
    CHECK(bg_available_memory() > 0, "available memory");
}

static void test_job_travels(void)
{
    bg_job job, back;
    const char **prompts;
    bg_named_task *tasks;
    const bg_named_task asked[] = {{"boolq", "b.parquet"}, {"piqa", "p \"q\".jsonl"}};
    bg_job_defaults(&job);
    job.tasks.items = asked;
    job.tasks.n = 2;
    job.tasks.limit = 7;
    job.model = "a/b";
    job.perplexity.enabled = job.generate.enabled = true;
    job.perplexity.text = "t \"x\"";
    job.generate.seed = UINT64_MAX;
    job.generate.temperature = 0.7;
    json_t *json = bg_job_to_json(&job);
    CHECK(json != NULL, "to JSON");
    OK(bg_job_from_json(json, &back, &prompts, &tasks, &err));
    CHECK_STRING(back.model, "a/b");
    CHECK_STRING(back.perplexity.text, job.perplexity.text);
    CHECK(back.generate.seed == UINT64_MAX && back.generate.temperature == 0.7 &&
              back.generate.n_prompts == 4 && back.classify.data == NULL &&
              back.perplexity.protocols == job.perplexity.protocols,
          "numbers");
    CHECK_STRING(back.generate.prompts[3], job.generate.prompts[3]);
    bg_free(prompts);
    CHECK(back.tasks.n == 2 && back.tasks.limit == 7 && back.tasks.batch == job.tasks.batch &&
              strcmp(back.tasks.items[1].name, "piqa") == 0 &&
              strcmp(back.tasks.items[1].data, asked[1].data) == 0,
          "tasks");
    bg_free(tasks);
    json_object_del(json, "bench");
    CHECK(bg_job_from_json(json, &back, &prompts, &tasks, &err) == BG_ERR_INTERNAL, "incomplete");
    json_decref(json);
    job.bench.enabled = true;
    job.bench.runs = 0;
    CHECK(bg_job_check(&job, &err) == BG_ERR_USAGE, "no runs");
    job.bench.runs = 1;
    job.bench.runs = 1;
    static const char *const not_utf8[] = {"a\xff"};
    const char *const *prompts_before = job.generate.prompts;
    job.generate.prompts = not_utf8;
    job.generate.n_prompts = 1;
    CHECK(bg_job_check(&job, &err) == BG_ERR_USAGE && strstr(err.message, "UTF-8"), "%s",
          err.message);
    job.generate.prompts = prompts_before;
    job.generate.temperature = NAN;
    CHECK(bg_job_check(&job, &err) == BG_ERR_USAGE, "a temperature that is no number");
}

static void test_timing(void)
{
    static const char *const directories[] = {"tests/fixtures/tiny-gpt2/prefixed",
                                              "tests/fixtures/tiny-distilbert/two-labels"};
    bg_backend *backend;
    OK(bg_backend_open("cpu", 2, &backend, &err));
    for (int i = 0; i < 2; i++) {
        bg_checkpoint *checkpoint;
        bg_model *model;
        bg_timing *timing;
        bg_round round;
        int rounds;
        bool settled;
        OK(bg_checkpoint_open(directories[i], &checkpoint, &err));
        OK(bg_model_load(backend, checkpoint, false, bg_format_by_name("nf4"), (bg_progress){0},
                         &model, &err));
        bg_checkpoint_close(checkpoint);
        OK(bg_timing_create(model, 5, 7, 3, &timing, &err));
        OK(bg_timing_warm_up(timing, &rounds, &settled, &err));
        CHECK(rounds >= 2 && rounds <= 50, "%d rounds", rounds);
        OK(bg_timing_round(timing, &round, &err));
        CHECK(round.prefill > 0, "prefill");
        if (i == 0)
            CHECK(round.first_token > round.prefill && round.decode > 0, "decoder");
        else
            CHECK(round.decode == 0 && round.first_token == 0, "classifier");
        bg_timing_free(timing);
        CHECK(bg_timing_create(model, 20, 5, 1, &timing, &err) == (i ? BG_OK : BG_ERR_USAGE),
              "more than the model's positions: %s", err.message);
        bg_timing_free(timing);
        bg_model_free(model);
    }
    backend->ops->free(backend);
}

/* vs_baseline from two runs written by hand. */
static void test_compare(void)
{
    json_t *base = json_pack(
        "{s:s, s:i, s:{s:i, s:i}, s:{s:[f,f,f]}, s:[{s:s, s:f}], s:{s:f}, s:[{s:[i,i]},{s:[i,i]}]}",
        "precision", "fp32", "weights_bytes", 1000, "memory", "rss_before", 100, "rss_loaded", 1100,
        "prefill", "samples_s", 4.0, 4.0, 4.0, "perplexity", "protocol", "lines", "value", 100.0,
        "accuracy", "value", 0.9, "generations", "token_ids", 1, 2, "token_ids", 3, 4);
    json_t *run = json_pack(
        "{s:s, s:i, s:{s:i, s:i}, s:{s:[f,f,f]}, s:[{s:s, s:f}], s:{s:f}, s:[{s:[i,i]},{s:[i,i]}]}",
        "precision", "nf4", "weights_bytes", 250, "memory", "rss_before", 100, "rss_loaded", 400,
        "prefill", "samples_s", 2.0, 1.0, 2.0, "perplexity", "protocol", "lines", "value", 102.0,
        "accuracy", "value", 0.88, "generations", "token_ids", 1, 2, "token_ids", 3, 5);
    json_t *paired = json_pack("{s:[f,f,f]}", "prefill", 6.0, 3.0, 2.0);
    CHECK(base && run && paired, "packed");
    OK(bg_results_compare(run, base, paired, &err));
    const json_t *vs = json_object_get(run, "vs_baseline");
#define NUMBER(key) json_number_value(json_object_get(vs, key))
    CHECK(NUMBER("weights_ratio") == 0.25 && NUMBER("memory_ratio") == 0.3, "memory");
    CHECK(NUMBER("prefill_speedup") == 3, "%g", NUMBER("prefill_speedup"));
    CHECK(json_is_true(json_object_get(vs, "interleaved")), "interleaved");
    CHECK(fabs(NUMBER("accuracy_change") + 0.02) < 1e-12, "accuracy");
    CHECK(NUMBER("generations_identical") == 1, "texts");
    const json_t *second = json_array_get(json_object_get(run, "generations"), 1);
    CHECK(json_integer_value(json_object_get(second, "first_difference")) == 1, "first difference");
    const json_t *change = json_array_get(json_object_get(vs, "perplexity_change_percent"), 0);
    CHECK(fabs(json_number_value(json_object_get(change, "value")) - 2) < 1e-9, "perplexity");
    json_decref(base);
    json_decref(run);
    json_decref(paired);
}

/* Memory figures of a device, whole or, where memory is out, not there; nothing leaks. */
static void test_footprint(void)
{
    bg_footprint before = {.rss = 10}, loaded = {.rss = 20}, half = {.rss = 20};
    before.usage.device = (bg_device_usage){.source = "nvml", .used = 100, .total = 1000};
    loaded.usage.device =
        (bg_device_usage){.source = "nvml", .used = 300, .total = 1000, .peak = 400};
    bg_tally_add(&loaded.usage.held, BG_USE_WEIGHTS, 150);
    bg_tally_add(&loaded.usage.held, BG_USE_CACHES, 60);
    bg_tally_drop(&loaded.usage.held, BG_USE_CACHES, 60);
    json_t *json = bg_footprint_loading(&before, &loaded);
    const json_t *device = json_object_get(json, "device");
    CHECK_STRING(json_string_value(json_object_get(device, "source")), "nvml");
    CHECK(json_integer_value(json_object_get(device, "loaded")) == 300, "loaded");
    json_decref(json);
    json = bg_footprint_loading(&before, &half);
    CHECK(json && !json_object_get(json, "device"), "measured once only");
    json_decref(json);
    for (long n = 0;; n++) {
        bg_alloc_fail_after(n);
        json_t *first = bg_footprint_loading(&before, &loaded);
        json_t *second = first ? bg_footprint_end(&loaded) : NULL;
        bg_alloc_fail_after(-1);
        json_decref(first);
        if (!second) continue;
        const json_t *allocated = json_object_get(second, "allocated");
        CHECK(json_integer_value(json_object_get(allocated, "peak")) == 210 &&
                  json_integer_value(json_object_get(allocated, "end")) == 150 &&
                  json_integer_value(json_object_get(allocated, "caches")) == 60,
              "by use");
        json_decref(second);
        CHECK(n > 10, "%ld allocations", n);
        return;
    }
}

/* What is told where a device's memory runs out. */
static void test_remedy(void)
{
    bg_checkpoint *checkpoint;
    bg_config config;
    OK(bg_checkpoint_open_config("tests/fixtures/shapes/llama-3.2-1b", &checkpoint, &err));
    OK(bg_config_load(checkpoint, &config, &err));
    bg_checkpoint_close(checkpoint);
    static const struct {
        const char *precision;
        double room;
        const char *options;
        int batch;
        const char *text;
    } cases[] = {
        {"fp16", 2e9, NULL, 0,
         "full; use a lower precision: the weights take about 1.4 GiB at int8, 1023.1 MiB at nf4"},
        {"fp16", 1.2e9, NULL, 0,
         "full; use a lower precision: the weights take about 1023.1 MiB at nf4"},
        {"nf4", 1e8, NULL, 0,
         "full; use a smaller model, a larger GPU or --device cpu: even the 1023.1 MiB that nf4 "
         "takes are too much"},
        {"int8", -1, "a smaller --batch", 4,
         "full; use a smaller --batch (a batch of 4 fits), or a lower precision: the weights take "
         "about 1023.1 MiB at nf4 instead of 1.4 GiB"},
        {"nf4", -1, "a shorter --max-length", 0,
         "full; use a shorter --max-length, or a smaller model, a larger GPU or --device cpu"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_shortage shortage = {&config, bg_format_by_name(cases[i].precision), cases[i].room,
                                cases[i].options, cases[i].batch};
        bg_error full;
        bg_fail(&full, BG_ERR_MEMORY, "full");
        bg_explain_shortage(&shortage, &full);
        CHECK_STRING(full.message, cases[i].text);
        CHECK(full.status == BG_ERR_MEMORY, "status");
        bg_fail(&full, BG_ERR_MEMORY, "full");
        bg_alloc_fail_after(0);
        bg_explain_shortage(&shortage, &full);
        bg_alloc_fail_after(-1);
        CHECK_STRING(full.message, "full");
    }
    bg_config_free(&config);
}

int main(void)
{
    bg_json_init();
    RUN(test_statistics);
    RUN(test_memory);
    RUN(test_footprint);
    RUN(test_remedy);
    RUN(test_job_travels);
    RUN(test_timing);
    RUN(test_compare);
    return test_finish();
}
