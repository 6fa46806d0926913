/* What Split and Replace look for: a literal string or a regular expression.
 *
 * tokenizer.json writes regular expressions for Oniguruma (Ruby syntax); here PCRE2 runs them. The
 * two differ in the few places that bg_pattern_regex translates: \s, \w, \b, \h, [:punct:] and a
 * few more mean different sets, ^ and $ match at every line, (?m) is what Perl calls (?s), and
 * {,n} is a repeat. What has no counterpart (set operations inside brackets) is refused. */
#ifndef BG_TOKENIZER_PATTERN_H
#define BG_TOKENIZER_PATTERN_H

#include "core/json.h"
#include "tokenizer/pieces.h"

typedef struct {
    char *literal; /* NULL: a regular expression */
    size_t size;
    void *code, *data, *context, *stack; /* PCRE2's compiled pattern and working memory */
} bg_pattern;

/* {"String": "..."} or {"Regex": "..."}, as `key` of `object`. */
bg_status bg_pattern_parse(const json_t *object, const char *key, const char *where,
                           bg_pattern *out, bg_error *err);
bg_status bg_pattern_literal(const char *text, size_t size, bg_pattern *out, bg_error *err);
bg_status bg_pattern_regex(const char *regex, const char *where, bg_pattern *out, bg_error *err);
void bg_pattern_free(bg_pattern *pattern);

/* Appends the matches in a text (valid UTF-8), and the stretches between them, to `out`. A regular
 * expression that backtracks without end is an error. Not thread-safe. */
bg_status bg_pattern_find(const bg_pattern *pattern, const char *text, size_t size, bg_matches *out,
                          bg_error *err);

#endif
