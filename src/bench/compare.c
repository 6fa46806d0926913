/* What a run is beside its baseline. */
#include "bench/results.h"
#include "bench/stats.h"
#include "bench/tasks.h"
#include "core/alloc.h"
#include "core/json.h"

#include <string.h>

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* speed-up = baseline / this, of paired samples. */
static bg_status speedup(json_t *out, const json_t *run, const json_t *paired, const char *what,
                         const char *key, const char *interval, bg_error *err)
{
    const json_t *a = json_object_get(paired, what);
    const json_t *b = json_object_get(json_object_get(run, what), "samples_s");
    size_t n = json_array_size(a);
    if (n == 0 || n != json_array_size(b)) return BG_OK;
    double *samples = bg_alloc_array(2 * n, sizeof *samples);
    if (!samples) return bg_fail_memory(err, 16 * n, "statistics");
    for (size_t i = 0; i < n; i++) {
        samples[i] = json_number_value(json_array_get(a, i));
        samples[n + i] = json_number_value(json_array_get(b, i));
    }
    bg_estimate e;
    bg_status status = bg_estimate_ratio(samples, samples + n, n, &e, err);
    bg_free(samples);
    BG_TRY(status);
    BG_TRY(bg_json_set(out, key, json_real(e.median), err));
    return bg_json_set(out, interval, json_pack("[f, f]", e.low, e.high), err);
}

/* What loading took: of the device's memory where it has its own, else of the host's. */
static double loaded_bytes(const json_t *run)
{
    const json_t *host = json_object_get(run, "memory"), *device = json_object_get(host, "device");
    return device ? number(device, "loaded") - number(device, "before")
                  : number(host, "rss_loaded") - number(host, "rss_before");
}

/* Joules for each token (or sentence), this / baseline. */
static bg_status energy(json_t *out, const json_t *run, const json_t *baseline, bg_error *err)
{
    static const struct {
        const char *phase, *each, *key;
    } ratios[] = {
        {"decode", "joules_per_token", "decode_energy_ratio"},
        {"prefill", "joules_per_token", "prefill_energy_ratio"},
        {"prefill", "joules_per_sentence", "prefill_energy_ratio"},
    };
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++) {
        const char *phase = ratios[i].phase, *each = ratios[i].each;
        const double theirs =
            number(json_object_get(json_object_get(baseline, phase), "energy"), each);
        const double mine = number(json_object_get(json_object_get(run, phase), "energy"), each);
        if (theirs > 0 && mine > 0)
            BG_TRY(bg_json_set(out, ratios[i].key, json_real(mine / theirs), err));
    }
    return BG_OK;
}

static bg_status memory(json_t *out, const json_t *run, const json_t *baseline, bg_error *err)
{
    double weights = number(baseline, "weights_bytes");
    if (weights > 0)
        BG_TRY(bg_json_set(out, "weights_ratio", json_real(number(run, "weights_bytes") / weights),
                           err));
    const double held = loaded_bytes(baseline), mine = loaded_bytes(run);
    if (held > 0 && mine > 0) BG_TRY(bg_json_set(out, "memory_ratio", json_real(mine / held), err));
    return BG_OK;
}

static bg_status perplexity(json_t *out, const json_t *run, const json_t *baseline, bg_error *err)
{
    const json_t *mine = json_object_get(run, "perplexity");
    const json_t *theirs = json_object_get(baseline, "perplexity");
    json_t *list = json_array(), *a, *b;
    size_t i, k;
    json_array_foreach(mine, i, b) json_array_foreach(theirs, k, a)
    {
        const char *protocol = json_string_value(json_object_get(b, "protocol"));
        const char *other = json_string_value(json_object_get(a, "protocol"));
        if (!list || !protocol || !other || strcmp(protocol, other) != 0) continue;
        double base = number(a, "value"), change = 100 * (number(b, "value") / base - 1);
        json_t *entry =
            json_pack("{s:s, s:f}", "protocol", protocol, "value", base > 0 ? change : 0);
        if (!entry || json_array_append_new(list, entry) != 0) {
            json_decref(list);
            return bg_fail_memory(err, 256, "a perplexity");
        }
    }
    if (json_array_size(list) > 0) return bg_json_set(out, "perplexity_change_percent", list, err);
    json_decref(list);
    return BG_OK;
}

/* Index of the first id that differs, or that one of the two does not have; -1 where none does. */
static json_int_t first_difference(const json_t *a, const json_t *b)
{
    size_t n = json_array_size(a), m = json_array_size(b);
    for (size_t i = 0; i < n || i < m; i++)
        if (i >= n || i >= m ||
            json_integer_value(json_array_get(a, i)) != json_integer_value(json_array_get(b, i)))
            return (json_int_t)i;
    return -1;
}

static bg_status generations(json_t *out, const json_t *run, const json_t *baseline, bg_error *err)
{
    const json_t *mine = json_object_get(run, "generations");
    const json_t *theirs = json_object_get(baseline, "generations");
    if (json_array_size(mine) == 0 || json_array_size(mine) != json_array_size(theirs))
        return BG_OK;
    int identical = 0;
    size_t i;
    json_t *g;
    json_array_foreach(mine, i, g)
    {
        json_int_t at = first_difference(json_object_get(g, "token_ids"),
                                         json_object_get(json_array_get(theirs, i), "token_ids"));
        if (at < 0)
            identical++;
        else
            BG_TRY(bg_json_set(g, "first_difference", json_integer(at), err));
    }
    return bg_json_set(out, "generations_identical", json_integer(identical), err);
}

bg_status bg_results_compare(json_t *run, const json_t *baseline, const json_t *paired,
                             bg_error *err)
{
    json_t *out = json_object();
    BG_TRY(bg_json_set(run, "vs_baseline", out, err));
    BG_TRY(bg_json_set(out, "baseline", json_incref(json_object_get(baseline, "precision")), err));
    BG_TRY(memory(out, run, baseline, err));
    /* Without paired samples, those that the baseline took at its own time. */
    json_t *own = NULL;
    if (!paired) {
        own = json_object();
        for (int i = 0; own && i < 2; i++) {
            const char *key = i ? "decode" : "prefill";
            json_t *samples = json_object_get(json_object_get(baseline, key), "samples_s");
            if (samples && json_object_set(own, key, samples) != 0) {
                json_decref(own);
                return bg_fail_memory(err, 256, key);
            }
        }
    }
    bg_status status = speedup(out, run, paired ? paired : own, "decode", "decode_speedup",
                               "decode_speedup_ci95", err);
    if (status == BG_OK)
        status = speedup(out, run, paired ? paired : own, "prefill", "prefill_speedup",
                         "prefill_speedup_ci95", err);
    json_decref(own);
    BG_TRY(status);
    if (paired) {
        json_t *kept = json_object();
        BG_TRY(bg_json_set(out, "baseline_samples_s", kept, err));
        BG_TRY(bg_json_set(kept, "prefill", json_incref(json_object_get(paired, "prefill")), err));
        if (json_object_get(run, "decode"))
            BG_TRY(
                bg_json_set(kept, "decode", json_incref(json_object_get(paired, "decode")), err));
    }
    if (json_object_get(out, "prefill_speedup"))
        BG_TRY(bg_json_set(out, "interleaved", json_boolean(paired != NULL), err));
    BG_TRY(energy(out, run, baseline, err));
    BG_TRY(perplexity(out, run, baseline, err));
    const json_t *a = json_object_get(baseline, "accuracy"), *b = json_object_get(run, "accuracy");
    if (a && b)
        BG_TRY(bg_json_set(out, "accuracy_change",
                           json_real(number(b, "value") - number(a, "value")), err));
    BG_TRY(bg_tasks_compare(out, run, baseline, err));
    return generations(out, run, baseline, err);
}
