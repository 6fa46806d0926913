/* Normalizers: text to text, each a row of the table at the end. */
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include "core/alloc.h"

#include <string.h>

#define EACH_CHARACTER(text, size, c)                                                              \
    for (size_t i_ = 0, n_ = 0; i_ < (size); i_ += n_)                                             \
        for (uint32_t once_ = 1, c = bg_utf8_next((text) + i_, &n_); once_; once_ = 0)

/* ---- BERT ------------------------------------------------------------------------------------ */

static bg_status bert_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    BG_TRY(bg_json_bool(object, "clean_text", where, true, &step->clean_text, err));
    BG_TRY(bg_json_bool(object, "handle_chinese_chars", where, true, &step->handle_chinese_chars,
                        err));
    BG_TRY(bg_json_bool(object, "lowercase", where, true, &step->lowercase, err));
    /* null: accents go where case goes */
    return bg_json_bool(object, "strip_accents", where, step->lowercase, &step->strip_accents, err);
}

static bg_status bert_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                            bg_error *err)
{
    bg_text clean = {0}, bare = {0};
    bg_status status = BG_OK;
    EACH_CHARACTER(text, size, c)
    {
        if (step->clean_text && bg_is_removed(c)) {
            if (i_ == 0) out->at_start = false;
            continue;
        }
        if (step->clean_text && bg_is_whitespace(c)) c = ' ';
        bool apart = step->handle_chinese_chars && bg_is_chinese(c);
        if (apart) bg_text_append(&clean, " ", 1);
        bg_utf8_append(&clean, c);
        if (apart) bg_text_append(&clean, " ", 1);
    }
    if (step->strip_accents && clean.size) {
        status = bg_append_normalized(&bare, clean.data, clean.size, BG_NFD, err);
        bg_text stripped = {0};
        EACH_CHARACTER(bare.data, status == BG_OK && !bare.failed ? bare.size : 0, c)
        {
            if (!bg_is_nonspacing(c))
                bg_utf8_append(&stripped, c);
            else if (i_ == 0)
                out->at_start = false;
        }
        stripped.failed |= bare.failed | clean.failed;
        bg_text_free(&clean);
        clean = stripped;
    }
    EACH_CHARACTER(clean.data, clean.failed ? 0 : clean.size, c)
    {
        if (step->lowercase)
            bg_append_lower(&out->text, c);
        else
            bg_utf8_append(&out->text, c);
    }
    out->failed |= clean.failed;
    bg_text_free(&clean);
    bg_text_free(&bare);
    return status;
}

/* ---- Unicode --------------------------------------------------------------------------------- */

#define NORMAL_FORM(name, form)                                                                    \
    static bg_status name(const bg_step *step, const char *text, size_t size, bg_pieces *out,      \
                          bg_error *err)                                                           \
    {                                                                                              \
        (void)step;                                                                                \
        return bg_append_normalized(&out->text, text, size, form, err);                            \
    }

NORMAL_FORM(nfc_apply, BG_NFC)
NORMAL_FORM(nfd_apply, BG_NFD)
NORMAL_FORM(nfkc_apply, BG_NFKC)
NORMAL_FORM(nfkd_apply, BG_NFKD)

static bg_status lowercase_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                                 bg_error *err)
{
    (void)step;
    (void)err;
    EACH_CHARACTER(text, size, c)
    {
        bg_append_lower(&out->text, c);
    }
    return BG_OK;
}

static bg_status strip_accents_apply(const bg_step *step, const char *text, size_t size,
                                     bg_pieces *out, bg_error *err)
{
    (void)step;
    (void)err;
    EACH_CHARACTER(text, size, c)
    {
        if (!bg_is_mark(c))
            bg_utf8_append(&out->text, c);
        else if (i_ == 0)
            out->at_start = false;
    }
    return BG_OK;
}

/* The clean-up of the NMT data set of SentencePiece: controls go, odd spaces become plain. */
static bg_status nmt_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                           bg_error *err)
{
    (void)step;
    (void)err;
    EACH_CHARACTER(text, size, c)
    {
        bool gone = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                    c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
        if (!gone)
            bg_utf8_append(&out->text, space ? ' ' : c);
        else if (i_ == 0)
            out->at_start = false;
    }
    return BG_OK;
}

static bg_status byte_level_apply(const bg_step *step, const char *text, size_t size,
                                  bg_pieces *out, bg_error *err)
{
    (void)step;
    (void)err;
    for (size_t i = 0; i < size; i++) bg_utf8_append(&out->text, bg_byte_to_char((uint8_t)text[i]));
    return BG_OK;
}

/* ---- editing --------------------------------------------------------------------------------- */

static bg_status strip_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    BG_TRY(bg_json_bool(object, "strip_left", where, true, &step->left, err));
    return bg_json_bool(object, "strip_right", where, true, &step->right, err);
}

static bg_status strip_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                             bg_error *err)
{
    (void)err;
    size_t n;
    while (step->left && size && bg_is_whitespace(bg_utf8_next(text, &n))) {
        text += n;
        size -= n;
        out->at_start = false;
    }
    while (step->right && size && bg_is_whitespace(bg_utf8_last(text, size, &n))) size -= n;
    bg_text_append(&out->text, text, size);
    return BG_OK;
}

static bg_status replace_parse(const json_t *object, const char *where, bg_step *step,
                               bg_error *err)
{
    BG_TRY(bg_pattern_parse(object, "pattern", where, &step->pattern, err));
    return bg_step_content(object, "content", NULL, where, step, err);
}

/* What one replacement may make of a text, before bg_steps_apply looks at the whole. */
enum { MAX_TEXT = 256 << 20 };

static bg_status replace_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                               bg_error *err)
{
    bg_matches matches = {0};
    bg_status status = bg_pattern_find(&step->pattern, text, size, &matches, err);
    for (size_t i = 0; status == BG_OK && i < matches.n; i++) {
        if (out->text.size > MAX_TEXT) {
            status =
                bg_fail(err, BG_ERR_FORMAT,
                        "the tokenizer's \"Replace\" makes more than %d bytes of text; its file "
                        "is damaged, download it again",
                        MAX_TEXT);
            break;
        }
        const bg_match *m = &matches.data[i];
        /* What replaces several characters counts as standing where the last of them was. */
        if (m->match && m->begin == 0 && (!step->content_size || bg_utf8_count(text, m->end) > 1))
            out->at_start = false;
        if (m->match)
            bg_text_append(&out->text, step->content, step->content_size);
        else
            bg_text_append(&out->text, text + m->begin, m->end - m->begin);
    }
    bg_matches_free(&matches);
    return status;
}

static bg_status precompiled_parse(const json_t *object, const char *where, bg_step *step,
                                   bg_error *err)
{
    const char *encoded;
    BG_TRY(bg_json_string(object, "precompiled_charsmap", where, "", &encoded, err));
    return bg_charsmap_base64(encoded, where, &step->charsmap, err);
}

static bg_status precompiled_apply(const bg_step *step, const char *text, size_t size,
                                   bg_pieces *out, bg_error *err)
{
    return bg_charsmap_apply(&step->charsmap, text, size, MAX_TEXT, &out->text, err);
}

static bg_status prepend_parse(const json_t *object, const char *where, bg_step *step,
                               bg_error *err)
{
    return bg_step_content(object, "prepend", NULL, where, step, err);
}

static bg_status prepend_apply(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                               bg_error *err)
{
    (void)err;
    if (size) bg_text_append(&out->text, step->content, step->content_size);
    bg_text_append(&out->text, text, size);
    return BG_OK;
}

const bg_step_kind bg_normalizer_kinds[] = {
    {.type = "BertNormalizer", .parse = bert_parse, .apply = bert_apply},
    {.type = "NFC", .apply = nfc_apply},
    {.type = "NFD", .apply = nfd_apply},
    {.type = "NFKC", .apply = nfkc_apply},
    {.type = "NFKD", .apply = nfkd_apply},
    {.type = "Lowercase", .apply = lowercase_apply},
    {.type = "StripAccents", .apply = strip_accents_apply},
    {.type = "Strip", .parse = strip_parse, .apply = strip_apply},
    {.type = "Replace", .parse = replace_parse, .apply = replace_apply},
    {.type = "Prepend", .parse = prepend_parse, .apply = prepend_apply},
    {.type = "Nmt", .apply = nmt_apply},
    {.type = "Precompiled", .parse = precompiled_parse, .apply = precompiled_apply},
    {.type = "ByteLevel", .apply = byte_level_apply},
    {0},
};
