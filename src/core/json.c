#include "core/json.h"

#include "core/alloc.h"
#include "core/file.h"

#include <limits.h>
#include <math.h>

/* jansson does not always say that it was memory it lacked. */
static _Thread_local bool memory_failed;

static void *json_alloc(size_t bytes)
{
    void *p = bg_alloc(bytes);
    if (!p) memory_failed = true;
    return p;
}

/* The seed of jansson's hash tables stays random, so that a file cannot choose keys that collide;
 * objects keep the order of insertion all the same. */
void bg_json_init(void)
{
    json_set_alloc_funcs(json_alloc, bg_free);
}

static bg_status parse(const char *text, size_t size, const char *where, size_t line, size_t flags,
                       size_t *used, json_t **out, bg_error *err)
{
    json_error_t problem;
    bg_json_init();
    memory_failed = false;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, &problem);
    if (*out) {
        *used = (size_t)problem.position;
        return BG_OK;
    }
    if (memory_failed || json_error_code(&problem) == json_error_out_of_memory)
        return bg_fail_memory(err, size, where);
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: not valid JSON at line %zu, column %d (%s); the file is damaged or no JSON "
                   "at all: download it again or correct it",
                   where, line + (size_t)problem.line - 1, problem.column, problem.text);
}

bg_status bg_json_parse(const char *text, size_t size, const char *where, json_t **out,
                        bg_error *err)
{
    size_t used;
    return parse(text, size, where, 1, 0, &used, out, err);
}

bg_status bg_json_parse_next(const char *text, size_t size, const char *where, size_t line,
                             size_t *used, json_t **out, bg_error *err)
{
    /* jansson counts in int. */
    return parse(text, size < INT_MAX ? size : INT_MAX, where, line,
                 JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, used, out, err);
}

bg_status bg_json_load(const char *path, size_t limit, json_t **out, bg_error *err)
{
    bg_mapping map;
    BG_TRY(bg_map_file(path, &map, err));
    bg_status status;
    if (map.size > limit)
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: %zu bytes is more than the %zu that such a file may have", path,
                         map.size, limit);
    else
        status = bg_json_parse((const char *)map.data, map.size, path, out, err);
    bg_unmap(&map);
    return status;
}

static bool lookup(const json_t *object, const char *key, json_t **value)
{
    *value = json_object_get(object, key);
    return *value && !json_is_null(*value);
}

bg_status bg_json_int(const json_t *object, const char *key, const char *where, int64_t min,
                      int64_t max, int64_t fallback, bool required, int64_t *out, bg_error *err)
{
    json_t *value;
    *out = fallback;
    if (!lookup(object, key, &value)) {
        if (!required) return BG_OK;
        return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" is missing; the file is not complete", where,
                       key);
    }
    /* 4096.0 is as good as 4096, up to where doubles hold every whole number. */
    double real = json_real_value(value);
    bool whole = json_is_real(value) && real == floor(real) && fabs(real) <= 0x1p53;
    int64_t number = whole ? (int64_t)real : (int64_t)json_integer_value(value);
    if (!(whole || json_is_integer(value)) || number < min || number > max)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"%s\" must be a whole number from %lld to %lld; correct the file",
                       where, key, (long long)min, (long long)max);
    *out = number;
    return BG_OK;
}

bg_status bg_json_real(const json_t *object, const char *key, const char *where, double fallback,
                       double *out, bg_error *err)
{
    json_t *value;
    *out = fallback;
    if (!lookup(object, key, &value)) return BG_OK;
    if (!json_is_number(value))
        return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" must be a number; correct the file", where,
                       key);
    *out = json_number_value(value);
    return BG_OK;
}

bg_status bg_json_bool(const json_t *object, const char *key, const char *where, bool fallback,
                       bool *out, bg_error *err)
{
    json_t *value;
    *out = fallback;
    if (!lookup(object, key, &value)) return BG_OK;
    if (!json_is_boolean(value))
        return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" must be true or false; correct the file",
                       where, key);
    *out = json_is_true(value);
    return BG_OK;
}

bg_status bg_json_string(const json_t *object, const char *key, const char *where,
                         const char *fallback, const char **out, bg_error *err)
{
    json_t *value;
    *out = fallback;
    if (!lookup(object, key, &value)) return BG_OK;
    if (!json_is_string(value))
        return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" must be a string; correct the file", where,
                       key);
    *out = json_string_value(value);
    return BG_OK;
}

bg_status bg_json_set(json_t *object, const char *key, json_t *value, bg_error *err)
{
    if (value && json_object_set_new(object, key, value) == 0) return BG_OK;
    return bg_fail_memory(err, 64, key);
}
