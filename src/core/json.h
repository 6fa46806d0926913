/* JSON from files that are not trusted, over jansson: size-limited loading and typed look-ups whose
 * errors name the file, the key and what was expected. */
#ifndef BG_CORE_JSON_H
#define BG_CORE_JSON_H

#include "core/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes jansson allocate through core/alloc; call before anything else uses JSON. Idempotent. */
void bg_json_init(void);

/* Parses `size` bytes; the whole text must be one JSON value, with no duplicate keys in an object.
 * `where` names the source in errors. Nesting is limited by jansson (2048 levels). The caller owns
 * the reference (json_decref). */
bg_status bg_json_parse(const char *text, size_t size, const char *where, json_t **out,
                        bg_error *err);

/* Parses the value that `text` begins with, as one of several: *used is how many bytes it took. The
 * text begins in the source's line `line`, which errors name. Strings may hold NUL. */
bg_status bg_json_parse_next(const char *text, size_t size, const char *where, size_t line,
                             size_t *used, json_t **out, bg_error *err);

/* Parses a file of at most `limit` bytes. */
bg_status bg_json_load(const char *path, size_t limit, json_t **out, bg_error *err);

/* Integer `key` of `object` in [min, max]. Where the key is absent or null: *out = fallback, or, if
 * `required`, an error. */
bg_status bg_json_int(const json_t *object, const char *key, const char *where, int64_t min,
                      int64_t max, int64_t fallback, bool required, int64_t *out, bg_error *err);
bg_status bg_json_real(const json_t *object, const char *key, const char *where, double fallback,
                       double *out, bg_error *err);
bg_status bg_json_bool(const json_t *object, const char *key, const char *where, bool fallback,
                       bool *out, bg_error *err);
/* Borrowed string; *out = fallback (may be NULL) where absent or null. */
bg_status bg_json_string(const json_t *object, const char *key, const char *where,
                         const char *fallback, const char **out, bg_error *err);

/* object[key] = value, whose reference is taken; NULL is a value that memory did not suffice for.
 */
bg_status bg_json_set(json_t *object, const char *key, json_t *value, bg_error *err);

#endif
