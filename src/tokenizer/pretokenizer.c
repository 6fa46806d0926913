/* Pre-tokenizers: a piece of text to words, each a row of the table at the end. */
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include "core/alloc.h"

#include <string.h>

/* ---- splitting ------------------------------------------------------------------------------- */

typedef bool (*predicate)(uint32_t c);

/* Matches: each character of a kind by itself. */
static void find_characters(predicate is, uint32_t character, const char *text, size_t size,
                            bg_matches *out)
{
    size_t done = 0;
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t c = bg_utf8_next(text + i, &n);
        if (is ? !is(c) : c != character) continue;
        if (i > done) bg_matches_push(out, done, i, false);
        done = i + n;
        bg_matches_push(out, i, done, true);
    }
    if (done < size) bg_matches_push(out, done, size, false);
}

/* Where a new piece begins: between matches a and b, in this order, does nothing hold them
 * together? */
static bool parts(bg_split_behavior behavior, bool a, bool b)
{
    switch (behavior) {
    case BG_SPLIT_CONTIGUOUS:
        return a != b;
    case BG_SPLIT_MERGED_WITH_PREVIOUS:
        return a || !b;
    case BG_SPLIT_MERGED_WITH_NEXT:
        return !a || b;
    default:
        return true;
    }
}

static bg_status split(const bg_matches *matches, bg_split_behavior behavior, bool invert,
                       const char *text, size_t size, bg_pieces *out, bg_error *err)
{
    if (matches->failed) return bg_fail_memory(err, size, "the words of a text");
    for (size_t i = 0; i < matches->n; i++) {
        const bg_match *m = &matches->data[i];
        bool match = m->match != invert;
        if (behavior == BG_SPLIT_REMOVED && match) {
            if (m->begin == 0) out->at_start = false;
            continue;
        }
        if (i > 0 && parts(behavior, matches->data[i - 1].match != invert, match))
            bg_pieces_cut(out);
        bg_text_append(&out->text, text + m->begin, m->end - m->begin);
        if (behavior == BG_SPLIT_REMOVED) bg_pieces_cut(out);
    }
    bg_pieces_cut(out);
    return BG_OK;
}

static bg_status split_characters(predicate is, uint32_t character, bg_split_behavior behavior,
                                  const char *text, size_t size, bg_pieces *out, bg_error *err)
{
    bg_matches matches = {0};
    find_characters(is, character, text, size, &matches);
    bg_status status = split(&matches, behavior, false, text, size, out, err);
    bg_matches_free(&matches);
    return status;
}

static bg_status parse_behavior(const json_t *object, const char *where, const char *fallback,
                                bg_split_behavior *out, bg_error *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;
    BG_TRY(bg_json_string(object, "behavior", where, fallback, &name, err));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++) {
        *out = (bg_split_behavior)i;
        if (strcmp(name, names[i]) == 0) return BG_OK;
    }
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the split behavior \"%s\" is none of Removed, Isolated, "
                   "MergedWithPrevious, MergedWithNext, Contiguous; correct the file",
                   where, name ? name : "");
}

static bg_status split_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    BG_TRY(parse_behavior(object, where, NULL, &step->behavior, err));
    BG_TRY(bg_json_bool(object, "invert", where, false, &step->invert, err));
    return bg_pattern_parse(object, "pattern", where, &step->pattern, err);
}

static bg_status split_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                             bg_error *err)
{
    bg_matches matches = {0};
    bg_status status = bg_pattern_find(&step->pattern, text, size, &matches, err);
    if (status == BG_OK)
        status = split(&matches, step->behavior, step->invert, text, size, out, err);
    bg_matches_free(&matches);
    return status;
}

/* ---- byte level ------------------------------------------------------------------------------ */

bg_status bg_byte_level_pattern(bg_step *step, const char *where, bg_error *err)
{
    return bg_pattern_regex("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                            "\\s+(?!\\S)|\\s+",
                            where, &step->pattern, err);
}

static bg_status byte_level_parse(const json_t *object, const char *where, bg_step *step,
                                  bg_error *err)
{
    BG_TRY(bg_json_bool(object, "add_prefix_space", where, true, &step->add_prefix_space, err));
    BG_TRY(bg_json_bool(object, "use_regex", where, true, &step->use_regex, err));
    return step->use_regex ? bg_byte_level_pattern(step, where, err) : BG_OK;
}

static bg_status byte_level_apply(const bg_step *step, const char *text, size_t size,
                                  bg_pieces *out, bg_error *err)
{
    bg_text prefixed = {0};
    bg_matches matches = {0};
    bg_status status = BG_OK;
    if (step->add_prefix_space && text[0] != ' ') {
        bg_text_append(&prefixed, " ", 1);
        bg_text_append(&prefixed, text, size);
        if (prefixed.failed) {
            bg_text_free(&prefixed);
            return bg_fail_memory(err, size + 1, "a text");
        }
        text = prefixed.data;
        size = prefixed.size;
    }
    if (step->use_regex)
        status = bg_pattern_find(&step->pattern, text, size, &matches, err);
    else
        bg_matches_push(&matches, 0, size, false);
    out->failed |= matches.failed;
    for (size_t i = 0; status == BG_OK && i < matches.n; i++) {
        char coded[256]; /* every byte is at most two */
        size_t n = 0;
        for (size_t j = matches.data[i].begin; j < matches.data[i].end; j++) {
            uint32_t c = bg_byte_to_char((uint8_t)text[j]);
            if (c >= 0x80) coded[n++] = (char)(0xC0 | c >> 6);
            coded[n++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3F) : c);
            if (n + 2 > sizeof coded) {
                bg_text_append(&out->text, coded, n);
                n = 0;
            }
        }
        bg_pieces_add(out, coded, n);
    }
    bg_matches_free(&matches);
    bg_text_free(&prefixed);
    return status;
}

/* ---- by kinds of character ------------------------------------------------------------------- */

static bg_status bert_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                            bg_error *err)
{
    (void)step;
    bg_matches words = {0};
    find_characters(bg_is_whitespace, 0, text, size, &words);
    bg_status status = words.failed ? bg_fail_memory(err, size, "the words of a text") : BG_OK;
    for (size_t i = 0; status == BG_OK && i < words.n; i++) {
        const bg_match *m = &words.data[i];
        size_t begin = m->begin;
        if (m->match && begin == 0) out->at_start = false;
        for (size_t j = begin, n; !m->match && j < m->end; j += n) {
            if (!bg_is_punctuation(bg_utf8_next(text + j, &n))) continue;
            bg_pieces_add(out, text + begin, j - begin);
            bg_pieces_add(out, text + j, n);
            begin = j + n;
        }
        if (!m->match) bg_pieces_add(out, text + begin, m->end - begin);
    }
    bg_matches_free(&words);
    return status;
}

/* \w+|[^\w\s]+ */
static bg_status whitespace_apply(const bg_step *step, const char *text, size_t size,
                                  bg_pieces *out, bg_error *err)
{
    (void)step;
    (void)err;
    enum { SPACE, WORD, OTHER } last = SPACE;
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t c = bg_utf8_next(text + i, &n);
        int kind = bg_is_word(c) ? WORD : bg_is_whitespace(c) ? SPACE : OTHER;
        if (kind != (int)last) bg_pieces_cut(out);
        if (kind != SPACE)
            bg_text_append(&out->text, text + i, n);
        else if (i == 0)
            out->at_start = false;
        last = kind;
    }
    return BG_OK;
}

static bg_status whitespace_split_apply(const bg_step *step, const char *text, size_t size,
                                        bg_pieces *out, bg_error *err)
{
    (void)step;
    return split_characters(bg_is_whitespace, 0, BG_SPLIT_REMOVED, text, size, out, err);
}

static bg_status punctuation_parse(const json_t *object, const char *where, bg_step *step,
                                   bg_error *err)
{
    return parse_behavior(object, where, "Isolated", &step->behavior, err);
}

static bg_status punctuation_apply(const bg_step *step, const char *text, size_t size,
                                   bg_pieces *out, bg_error *err)
{
    return split_characters(bg_is_punctuation, 0, step->behavior, text, size, out, err);
}

static bg_status digits_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    return bg_json_bool(object, "individual_digits", where, false, &step->individual_digits, err);
}

static bg_status digits_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                              bg_error *err)
{
    bg_split_behavior behavior = step->individual_digits ? BG_SPLIT_ISOLATED : BG_SPLIT_CONTIGUOUS;
    return split_characters(bg_is_numeric, 0, behavior, text, size, out, err);
}

static bg_status delimiter_parse(const json_t *object, const char *where, bg_step *step,
                                 bg_error *err)
{
    return bg_step_character(object, "delimiter", NULL, where, step, err);
}

static bg_status delimiter_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                                 bg_error *err)
{
    return split_characters(NULL, step->character, BG_SPLIT_REMOVED, text, size, out, err);
}

/* ---- Metaspace ------------------------------------------------------------------------------- */

/* A space becomes a visible character, and a piece begins at each. */
static bg_status metaspace_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                                 bg_error *err)
{
    bg_text replaced = {0};
    const char *mark = step->content;
    const size_t mark_size = step->content_size;
    bool marked = text[0] == ' ' || (size >= mark_size && memcmp(text, mark, mark_size) == 0);
    bool prepend =
        step->prepend == BG_PREPEND_ALWAYS || (step->prepend == BG_PREPEND_FIRST && out->at_start);
    if (prepend && !marked) bg_text_append(&replaced, mark, mark_size);
    for (size_t i = 0; i < size;) {
        const char *space = memchr(text + i, ' ', size - i);
        size_t end = space ? (size_t)(space - text) : size;
        bg_text_append(&replaced, text + i, end - i);
        if (space) bg_text_append(&replaced, mark, mark_size);
        i = end + (space != NULL);
    }
    bg_status status = BG_OK;
    if (replaced.failed)
        status = bg_fail_memory(err, size, "the words of a text");
    else if (step->split)
        status = split_characters(NULL, step->character, BG_SPLIT_MERGED_WITH_NEXT, replaced.data,
                                  replaced.size, out, err);
    else
        bg_pieces_add(out, replaced.data, replaced.size);
    bg_text_free(&replaced);
    return status;
}

/* ---- by length, by script -------------------------------------------------------------------- */

static bg_status fixed_length_parse(const json_t *object, const char *where, bg_step *step,
                                    bg_error *err)
{
    int64_t length;
    BG_TRY(bg_json_int(object, "length", where, 1, INT32_MAX, 5, false, &length, err));
    step->length = (size_t)length;
    return BG_OK;
}

static bg_status fixed_length_apply(const bg_step *step, const char *text, size_t size,
                                    bg_pieces *out, bg_error *err)
{
    (void)err;
    size_t begin = 0, count = 0;
    for (size_t i = 0, n; i < size; i += n) {
        if (count++ == step->length) {
            bg_pieces_add(out, text + begin, i - begin);
            begin = i;
            count = 1;
        }
        bg_utf8_next(text + i, &n);
    }
    bg_pieces_add(out, text + begin, size - begin);
    return BG_OK;
}

/* A piece begins where the script changes. What comes before the first character of any script is
 * dropped, as `tokenizers` does. */
static bg_status unicode_scripts_apply(const bg_step *step, const char *text, size_t size,
                                       bg_pieces *out, bg_error *err)
{
    (void)step;
    (void)err;
    unsigned last = 0; /* none yet */
    size_t begin = 0;
    for (size_t i = 0, n; i < size; i += n) {
        unsigned script = bg_script(bg_utf8_next(text + i, &n));
        if (!script || script == last) continue;
        if (last)
            bg_pieces_add(out, text + begin, i - begin);
        else if (i > 0)
            out->at_start = false;
        begin = i;
        last = script;
    }
    if (last) bg_pieces_add(out, text + begin, size - begin);
    return BG_OK;
}

const bg_step_kind bg_pretokenizer_kinds[] = {
    {.type = "ByteLevel", .parse = byte_level_parse, .apply = byte_level_apply},
    {.type = "BertPreTokenizer", .apply = bert_apply},
    {.type = "Whitespace", .apply = whitespace_apply},
    {.type = "WhitespaceSplit", .apply = whitespace_split_apply},
    {.type = "Split", .parse = split_parse, .apply = split_apply},
    {.type = "Punctuation", .parse = punctuation_parse, .apply = punctuation_apply},
    {.type = "Digits", .parse = digits_parse, .apply = digits_apply},
    {.type = "Metaspace", .parse = bg_metaspace_parse, .apply = metaspace_apply},
    {.type = "FixedLength", .parse = fixed_length_parse, .apply = fixed_length_apply},
    {.type = "UnicodeScripts", .apply = unicode_scripts_apply},
    {.type = "CharDelimiterSplit", .parse = delimiter_parse, .apply = delimiter_apply},
    {0},
};
