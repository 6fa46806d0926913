/* Documents of the wrong shape, and memory running out at every place where it can. */
#include "core/alloc.h"
#include "report/sample.h"

#include <stdint.h>

static void render_all(const json_t *document)
{
    for (size_t f = 0; f < FORMATS; f++) {
        bg_text out = rendered(document, every_format[f], 80);
        bg_text_free(&out);
    }
}

static void test_no_object(void)
{
    static const char *const texts[] = {"[]", "1", "\"bitgauge/1\"", "null", "true"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *document = parsed(texts[i]);
        for (size_t f = 0; f < FORMATS; f++) {
            bg_error err = {0};
            bg_text out = {0};
            CHECK(bg_report_render(document, every_format[f], 80, &out, &err) == BG_ERR_INTERNAL);
            CHECK(err.message[0]);
            bg_text_free(&out);
        }
        json_decref(document);
    }
    bg_text out = {0};
    CHECK(bg_report_render(NULL, BG_REPORT_HTML, 80, &out, NULL) == BG_ERR_INTERNAL);
    json_t *empty = json_object();
    CHECK(bg_report_render(empty, (bg_report_format)99, 80, &out, NULL) == BG_ERR_USAGE);
    json_decref(empty);
    bg_text_free(&out);
}

static void test_odd_documents(void)
{
    static const char *const texts[] = {
        "{}",
        "{\"runs\":{}}",
        "{\"runs\":[1,\"x\",null,[],{}]}",
        "{\"models\":[1,{\"name\":\"\"},{\"name\":\"m\"},{\"name\":\"m\"}],\"runs\":[{\"model\":"
        "\"m\"}]}",
        "{\"runs\":[{\"model\":7,\"precision\":8,\"status\":9,\"error\":[]}]}",
        "{\"runs\":[{\"precision\":\"fp32\",\"status\":\"ok\",\"prefill\":{\"median_s\":0,"
        "\"samples_s\":[0,0],\"ci95_s\":[0,0]},\"decode\":{\"median_s\":1e308,\"ms_per_token\":"
        "1e308,\"samples_s\":[-1e308,1e308]},\"weights_bytes\":-5,\"memory\":{\"rss_before\":1e300,"
        "\"rss_loaded\":0,\"rss_peak\":1}}]}",
        "{\"runs\":[{\"precision\":\"a\",\"status\":\"ok\",\"vs_baseline\":{\"baseline\":\"b\","
        "\"decode_speedup\":1e308,\"decode_speedup_ci95\":[-1e308,1e308],"
        "\"perplexity_change_percent\":[{\"protocol\":\"lines\",\"value\":-1e308}]}},"
        "{\"precision\":\"b\",\"status\":\"ok\"}]}",
        "{\"runs\":[{\"precision\":\"fp32\",\"status\":\"ok\",\"generations\":[1,{},[],{\"text\":7,"
        "\"prompt\":{},\"token_ids\":\"x\",\"first_difference\":-3}],\"kernels\":[1,\"\",null],"
        "\"notes\":\"x\",\"vs_baseline\":{\"baseline\":\"fp32\"}}]}",
        "{\"machine\":[],\"command\":7,\"created\":\"9999999999999999999\",\"version\":{},"
        "\"model\":3,\"models\":\"x\",\"runs\":[]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *document = parsed(texts[i]);
        render_all(document);
        json_decref(document);
    }
}

static json_t *substitute(size_t kind)
{
    switch (kind % 9) {
    case 0:
        return json_integer(INT64_MIN);
    case 1:
        return json_real(1e308);
    case 2:
        return json_string(
            "\x1b[31m<b>|`\"=,\n\u202E東京 a rather long string that goes on and on");
    case 3:
        return json_array();
    case 4:
        return json_object();
    case 5:
        return json_null();
    case 6:
        return json_pack("[[f,f],{s:s},i]", -1.5, 0.0, "protocol", "lines", 3);
    case 7:
        return json_false();
    default:
        return NULL; /* taken out */
    }
}

/* Counts the values below `value`; the `at`-th one is replaced. */
static size_t replace(json_t *value, size_t seen, size_t at, size_t kind)
{
    const char *key;
    void *next;
    json_t *child;
    if (json_is_object(value)) {
        json_object_foreach_safe(value, next, key, child)
        {
            if (seen++ == at) {
                json_t *other = substitute(kind);
                if (other)
                    json_object_set_new(value, key, other);
                else
                    json_object_del(value, key);
                return seen;
            }
            seen = replace(child, seen, at, kind);
            if (seen > at) return seen;
        }
    }
    /* Long lists are all alike: their first entries stand for the rest. */
    for (size_t i = 0; i < json_array_size(value) && i < 8; i++) {
        if (seen++ == at) {
            json_t *other = substitute(kind);
            if (other)
                json_array_set_new(value, i, other);
            else
                json_array_remove(value, i);
            return seen;
        }
        seen = replace(json_array_get(value, i), seen, at, kind);
        if (seen > at) return seen;
    }
    return seen;
}

/* Three runs of the sample are enough to reach every place. */
static json_t *small_sample(void)
{
    json_t *sample = load_sample(), *runs = json_object_get(sample, "runs");
    while (json_array_size(runs) > 9) json_array_remove(runs, 9);
    json_t *classifier = json_array_get(runs, 8);
    json_t *kept =
        json_pack("[O,O,O]", json_array_get(runs, 0), json_array_get(runs, 4), classifier);
    json_object_set_new(sample, "runs", kept);
    return sample;
}

static void test_every_value_replaced(void)
{
    json_t *sample = small_sample();
    size_t n = replace(sample, 0, SIZE_MAX, 0);
    CHECK(n > 200, "%zu values", n);
    for (size_t at = 0; at < n; at++) {
        /* Each value in turn, by each kind in turn over the neighbours; all kinds over nine. */
        json_t *document = json_deep_copy(sample);
        replace(document, 0, at, at + at / 9);
        render_all(document);
        json_decref(document);
    }
    json_decref(sample);
}

static void test_many_replaced(void)
{
    json_t *sample = small_sample();
    size_t n = replace(sample, 0, SIZE_MAX, 0);
    uint32_t random = 12345;
    for (int round = 0; round < 300; round++) {
        json_t *document = json_deep_copy(sample);
        for (int i = 0; i < 12; i++) {
            random = random * 1664525 + 1013904223;
            size_t at = (random >> 8) % n;
            random = random * 1664525 + 1013904223;
            replace(document, 0, at, random >> 12);
        }
        bg_text out = {0};
        bg_status status =
            bg_report_render(document, every_format[round % FORMATS], 80, &out, NULL);
        CHECK(status == BG_OK, "round %d", round);
        bg_text_free(&out);
        json_decref(document);
    }
    json_decref(sample);
}

static void test_deep(void)
{
    json_t *document = json_object(), *at = document;
    for (int i = 0; i < 1500; i++) {
        json_t *inner = i % 2 ? json_object() : json_array();
        if (json_is_object(at))
            json_object_set_new(at, "runs", inner);
        else
            json_array_append_new(at, inner);
        at = inner;
    }
    render_all(document);
    json_decref(document);
}

static void test_many_rows(void)
{
    json_t *document = json_object(), *runs = json_array();
    for (int i = 0; i < 300; i++) {
        char model[32];
        snprintf(model, sizeof model, "m%d", i / 150);
        json_array_append_new(runs, json_pack("{s:s,s:s,s:s,s:i,s:{s:s,s:f,s:f,s:[{s:s,s:f}]}}",
                                              "model", model, "precision", i % 150 ? "nf4" : "fp32",
                                              "status", "ok", "weights_bytes", i, "vs_baseline",
                                              "baseline", "fp32", "weights_ratio", 0.5,
                                              "decode_speedup", 1.5, "perplexity_change_percent",
                                              "protocol", "lines", "value", 1.0));
    }
    json_object_set_new(document, "runs", runs);
    render_all(document);
    json_decref(document);
}

/* Every allocation fails once: an error each time, no crash, no leak, no half report taken for a
 * whole one. */
static void test_out_of_memory(void)
{
    json_t *sample = small_sample();
    for (size_t f = 0; f < FORMATS; f++) {
        bg_text whole = rendered(sample, every_format[f], 80);
        bool finished = false;
        long n = 0;
        /* JSON allocates for every value; steps grow so that the test stays short. */
        for (; !finished && n < 100000; n += 1 + n / 64) {
            bg_error err = {0};
            bg_text out = {0};
            bg_alloc_fail_after(n);
            bg_status status = bg_report_render(sample, every_format[f], 80, &out, &err);
            bg_alloc_fail_after(-1);
            finished = status == BG_OK;
            if (finished)
                CHECK_STRING(out.data, whole.data);
            else
                CHECK(status == BG_ERR_MEMORY && err.message[0], "after %ld: status %d", n,
                      (int)status);
            bg_text_free(&out);
        }
        CHECK(finished && n > 3, "format %zu after %ld allocations", f, n);
        bg_text_free(&whole);
    }
    json_decref(sample);
}

int main(void)
{
    RUN(test_no_object);
    RUN(test_odd_documents);
    RUN(test_every_value_replaced);
    RUN(test_many_replaced);
    RUN(test_deep);
    RUN(test_many_rows);
    RUN(test_out_of_memory);
    return test_finish();
}
