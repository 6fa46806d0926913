#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include "core/alloc.h"
#include "tokenizer/unicode.h"

#include <pcre2.h>
#include <string.h>

enum {
    LONGEST_REGEX = 64 * 1024,
    MATCH_LIMIT = 10 * 1000 * 1000, /* backtracking steps for one match */
    STACK_LIMIT = 4 * 1024 * 1024,  /* of the just-in-time compiled code */
    HEAP_LIMIT_KIB = 64 * 1024,
};

/* ---- Oniguruma's syntax in PCRE2's ------------------------------------------------------------
 */

/* Oniguruma counts six of the Latin-1 numbers, and no others like them, as word characters. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* The letters and numbers of Unicode 15 and 16, which a PCRE2 of before 10.45 does not know. */
#define NEW_LETTERS                                                                                \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"               \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}"                              \
    "\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"                               \
    "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}"                     \
    "\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"                               \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"                              \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"                     \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}"                    \
    "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"

#define NEW_NUMBERS                                                                                \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"                              \
    "\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}"                              \
    "\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"                              \
    "\\x{1e5f1}-\\x{1e5fa}"

/* Oniguruma's character types as the contents of a PCRE2 class; `not_inside` is the complement as
 * further contents, NULL where it cannot be written so. */
static const struct {
    char letter, complement;
    const char *inside, *not_inside;
} types[] = {
    {'s', 'S',
     "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
     "\\x{202f}\\x{205f}\\x{3000}",
     "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
     "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-"
     "\\x{10ffff}"},
    {'w', 'W', WORD, NULL},
    {'h', 'H', "0-9A-Fa-f", "\\x{0}-/:-@G-`g-\\x{10ffff}"},
};

/* Names of sets, where PCRE2 means another: inside brackets "[:punct:]", anywhere "\\p{L}". */
static const struct {
    const char *name, *inside;
} sets[] = {
    {"[:punct:]", "\\p{P}\\p{S}"},           {"[:alpha:]", "\\p{Alphabetic}"},
    {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:word:]", WORD},
    {"\\p{L}", "\\p{L}" NEW_LETTERS},        {"\\p{N}", "\\p{N}" NEW_NUMBERS},
};

static const char *set_at(const char *p, size_t *length)
{
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        *length = strlen(sets[i].name);
        if (strncmp(p, sets[i].name, *length) == 0) return sets[i].inside;
    }
    return NULL;
}

static bg_status refuse(const char *where, const char *regex, const char *why, bg_error *err)
{
    return bg_fail(
        err, BG_ERR_UNSUPPORTED,
        "%s: regular expression \"%.80s\": %s is not supported; bitgauge cannot use this "
        "tokenizer",
        where, regex, why);
}

/* Translates the escape at p (a backslash and at least one more byte); returns its end, or NULL
 * where it cannot be written. */
static const char *translate_escape(const char *p, bool in_class, bg_text *out)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bool complement = p[1] == types[i].complement;
        if (p[1] != types[i].letter && !complement) continue;
        if (in_class) {
            const char *contents = complement ? types[i].not_inside : types[i].inside;
            if (!contents) return NULL;
            bg_text_puts(out, contents);
        } else {
            bg_text_printf(out, "[%s%s]", complement ? "^" : "", types[i].inside);
        }
        return p + 2;
    }
    if (!in_class && p[1] == 'b') { /* at the edge of a word, of these word characters */
        bg_text_puts(out, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
        return p + 2;
    }
    if (!in_class && p[1] == 'B') {
        bg_text_puts(out, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
        return p + 2;
    }
    if (p[1] == 'u' && strspn(p + 2, "0123456789abcdefABCDEF") >= 4) {
        bg_text_printf(out, "\\x{%.4s}", p + 2);
        return p + 6;
    }
    bg_text_append(out, p, 2);
    return p + 2;
}

static bg_status translate(const char *regex, const char *where, bg_text *out, bg_error *err)
{
    bool in_class = false;
    for (const char *p = regex; *p;) {
        size_t length;
        const char *set = in_class || *p == '\\' ? set_at(p, &length) : NULL;
        if (set) {
            bg_text_printf(out, in_class ? "%s" : "[%s]", set);
            p += length;
        } else if (*p == '\\' && p[1]) {
            p = translate_escape(p, in_class, out);
            if (!p) return refuse(where, regex, "\\W inside brackets", err);
        } else if (in_class && p[0] == '[' && p[1] == ':') {
            const char *end = strstr(p, ":]");
            if (!end) return refuse(where, regex, "an unfinished [: :]", err);
            bg_text_append(out, p, (size_t)(end + 2 - p));
            p = end + 2;
        } else if (in_class && (*p == '[' || (p[0] == '&' && p[1] == '&'))) {
            return refuse(where, regex, "a set operation inside brackets", err);
        } else if (!in_class && p[0] == '{' && p[1] == ',') {
            bg_text_puts(out, "{0");
            p++;
        } else if (!in_class && p[0] == '(' && p[1] == '?') {
            size_t flags = strspn(p + 2, "imx-");
            bool options = flags && (p[2 + flags] == ')' || p[2 + flags] == ':');
            bg_text_append(out, p, 2);
            for (size_t i = 0; options && i < flags; i++)
                bg_text_append(out, p[2 + i] == 'm' ? "s" : p + 2 + i, 1);
            p += options ? 2 + flags : 2;
        } else {
            if (in_class && *p == ']') {
                in_class = false;
            } else if (!in_class && *p == '[') {
                in_class = true;
                if (p[1] == '^') bg_text_append(out, p++, 1);
                if (p[1] == ']') bg_text_append(out, p++, 1);
            }
            bg_text_append(out, p++, 1);
        }
    }
    return out->failed ? bg_fail_memory(err, strlen(regex) * 8, "a regular expression") : BG_OK;
}

/* ---- compiling ------------------------------------------------------------------------------- */

static void *allocate(size_t size, void *unused)
{
    (void)unused;
    return bg_alloc(size);
}

static void release(void *p, void *unused)
{
    (void)unused;
    bg_free(p);
}

static bg_status compile(const char *regex, size_t size, const char *where,
                         pcre2_general_context *general, bg_pattern *out, bg_error *err)
{
    pcre2_compile_context *options = pcre2_compile_context_create(general);
    if (!options) return bg_fail_memory(err, 0, "a regular expression");
    pcre2_set_max_pattern_length(options, LONGEST_REGEX);
    pcre2_set_newline(options, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    out->code = pcre2_compile((PCRE2_SPTR)regex, size,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &code, &offset, options);
    pcre2_compile_context_free(options);
    if (!out->code) {
        PCRE2_UCHAR message[128] = "";
        if (code == PCRE2_ERROR_HEAP_FAILED) return bg_fail_memory(err, 0, "a regular expression");
        pcre2_get_error_message(code, message, sizeof message);
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the regular expression \"%.80s\" cannot be compiled (%s); correct the "
                       "file",
                       where, regex, (const char *)message);
    }
    /* Where there is no compiler for this machine the interpreter runs the pattern. */
    if (pcre2_jit_compile(out->code, PCRE2_JIT_COMPLETE) == PCRE2_ERROR_NOMEMORY)
        return bg_fail_memory(err, 0, "a regular expression");
    out->data = pcre2_match_data_create(1, general);
    out->context = pcre2_match_context_create(general);
    out->stack = pcre2_jit_stack_create(32 * 1024, STACK_LIMIT, general);
    if (!out->data || !out->context || !out->stack)
        return bg_fail_memory(err, 0, "a regular expression");
    pcre2_set_match_limit(out->context, MATCH_LIMIT);
    pcre2_set_heap_limit(out->context, HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(out->context, NULL, out->stack);
    return BG_OK;
}

bg_status bg_pattern_regex(const char *regex, const char *where, bg_pattern *out, bg_error *err)
{
    *out = (bg_pattern){0};
    bg_text translated = {0};
    pcre2_general_context *general = pcre2_general_context_create(allocate, release, NULL);
    bg_status status = general ? translate(regex, where, &translated, err)
                               : bg_fail_memory(err, 0, "a regular expression");
    if (status == BG_OK)
        status = compile(translated.data ? translated.data : "", translated.size, where, general,
                         out, err);
    pcre2_general_context_free(general);
    bg_text_free(&translated);
    if (status != BG_OK) bg_pattern_free(out);
    return status;
}

bg_status bg_pattern_literal(const char *text, size_t size, bg_pattern *out, bg_error *err)
{
    *out = (bg_pattern){.literal = bg_strndup(text, size), .size = size};
    return out->literal ? BG_OK : bg_fail_memory(err, size, "a pattern");
}

bg_status bg_pattern_parse(const json_t *object, const char *key, const char *where,
                           bg_pattern *out, bg_error *err)
{
    *out = (bg_pattern){0};
    const json_t *value = json_object_get(object, key);
    const json_t *literal = json_object_get(value, "String");
    const json_t *regex = json_object_get(value, "Regex");
    if (json_is_string(value)) literal = value;
    if (json_is_string(literal) &&
        json_string_length(literal)) /* an empty one matches everywhere */
        return bg_pattern_literal(json_string_value(literal), json_string_length(literal), out,
                                  err);
    if (json_is_string(literal)) regex = literal;
    if (json_is_string(regex)) return bg_pattern_regex(json_string_value(regex), where, out, err);
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: \"%s\" must be {\"String\": ...} or {\"Regex\": ...}; correct the file",
                   where, key);
}

void bg_pattern_free(bg_pattern *pattern)
{
    bg_free(pattern->literal);
    pcre2_jit_stack_free(pattern->stack);
    pcre2_match_context_free(pattern->context);
    pcre2_match_data_free(pattern->data);
    pcre2_code_free(pattern->code);
    *pattern = (bg_pattern){0};
}

/* ---- searching ------------------------------------------------------------------------------- */

static void find_literal(const bg_pattern *pattern, const char *text, size_t size, bg_matches *out)
{
    size_t done = 0;
    const char *hit;
    while (pattern->size &&
           (hit = memmem(text + done, size - done, pattern->literal, pattern->size))) {
        size_t begin = (size_t)(hit - text);
        if (begin > done) bg_matches_push(out, done, begin, false);
        done = begin + pattern->size;
        bg_matches_push(out, begin, done, true);
    }
    if (done < size) bg_matches_push(out, done, size, false);
}

bg_status bg_pattern_find(const bg_pattern *pattern, const char *text, size_t size, bg_matches *out,
                          bg_error *err)
{
    if (pattern->literal) {
        find_literal(pattern, text, size, out);
        return out->failed ? bg_fail_memory(err, size, "the matches of a pattern") : BG_OK;
    }
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(pattern->data);
    size_t done = 0;          /* up to here the text is in `out` */
    size_t start = 0;         /* from here the next match is sought */
    bool after_match = false; /* an empty match right after another is passed over */
    while (size && start <= size) {
        int rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, size, start, PCRE2_NO_UTF_CHECK,
                             pattern->data, pattern->context);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0)
            return bg_fail(err, rc == PCRE2_ERROR_NOMEMORY ? BG_ERR_MEMORY : BG_ERR_FORMAT,
                           "a regular expression of the tokenizer gives up at byte %zu of the text "
                           "(PCRE2 error %d); it backtracks too much, shorten the text",
                           start, rc);
        size_t begin = span[0], end = span[1];
        if (begin > end) begin = end; /* \K in a lookahead */
        if (begin < done) begin = done;
        if (begin == end && after_match && end == done) {
            size_t length = 1;
            if (start < size) bg_utf8_next(text + start, &length);
            start += length;
            continue;
        }
        if (begin > done) bg_matches_push(out, done, begin, false);
        bg_matches_push(out, begin, end, true);
        done = start = end;
        after_match = true;
    }
    if (done < size) bg_matches_push(out, done, size, false);
    return out->failed ? bg_fail_memory(err, size, "the matches of a pattern") : BG_OK;
}
