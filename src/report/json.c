/* The document itself, indented, keys in the order they were put in. A list of numbers or strings
 * (samples, token ids) stays on one line: one sample a line would bury everything else. */
#include "core/alloc.h"
#include "report/formats.h"

enum { MOST_DEPTH = 100 };

/* Nanoseconds of a quarter of an hour: more digits would only show how doubles round. */
static const size_t json_flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(12);

static bool is_flat(const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *entry = json_array_get(array, i);
        if (json_is_array(entry) || json_is_object(entry)) return false;
    }
    return true;
}

static void put_indent(bg_text *out, int depth)
{
    bg_text_printf(out, "\n%*s", 2 * depth, "");
}

static void put_scalar(bg_text *out, const json_t *value)
{
    char *text = json_dumps(value, json_flags);
    if (text)
        bg_text_puts(out, text);
    else
        out->failed = true;
    bg_free(text);
}

static void put_value(bg_text *out, const json_t *value, int depth);

static void put_object(bg_text *out, const json_t *object, int depth)
{
    const char *before = "{";
    /* jansson's iterator wants a mutable object, and leaves it as it is. */
    json_t *open = (json_t *)(uintptr_t)object;
    for (void *at = json_object_iter(open); at; at = json_object_iter_next(open, at)) {
        bg_text_puts(out, before);
        put_indent(out, depth + 1);
        json_t *key = json_string_nocheck(json_object_iter_key(at));
        put_scalar(out, key);
        json_decref(key);
        bg_text_puts(out, ": ");
        put_value(out, json_object_iter_value(at), depth + 1);
        before = ",";
    }
    if (*before == '{') {
        bg_text_puts(out, "{}");
        return;
    }
    put_indent(out, depth);
    bg_text_puts(out, "}");
}

static void put_array(bg_text *out, const json_t *array, int depth)
{
    bool flat = is_flat(array);
    bg_text_puts(out, "[");
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i) bg_text_puts(out, flat ? ", " : ",");
        if (!flat) put_indent(out, depth + 1);
        put_value(out, json_array_get(array, i), depth + 1);
    }
    if (!flat) put_indent(out, depth);
    bg_text_puts(out, "]");
}

static void put_value(bg_text *out, const json_t *value, int depth)
{
    if (out->failed) return;
    /* Below that no results document goes; jansson's own writer notices a cycle. */
    if (depth < MOST_DEPTH && json_is_object(value))
        put_object(out, value, depth);
    else if (depth < MOST_DEPTH && json_is_array(value))
        put_array(out, value, depth);
    else
        put_scalar(out, value);
}

bg_status bg_report_json(const bg_report_view *view, int width, bg_text *out, bg_error *err)
{
    (void)width;
    put_value(out, view->document, 0);
    bg_text_puts(out, "\n");
    if (out->failed) return bg_fail_memory(err, out->capacity, "the JSON report");
    return BG_OK;
}
