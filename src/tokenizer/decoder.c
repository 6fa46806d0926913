/* Decoders: tokens back to text, each a row of the table at the end. A decoder turns a list of
 * tokens into another; the last list is joined. */
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include "core/alloc.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* ---- byte level ------------------------------------------------------------------------------ */

static bg_status byte_level_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                                   bg_error *err)
{
    (void)step;
    bg_text bytes = {0};
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        size_t size = bg_piece_size(in, t), start = bytes.size, n;
        for (size_t i = 0; i < size; i += n) {
            int byte = bg_char_to_byte(bg_utf8_next(text + i, &n));
            if (byte < 0) { /* not of this alphabet: the token stands for itself */
                bytes.size = start;
                bg_text_append(&bytes, text, size);
                break;
            }
            bg_text_append(&bytes, &(char){(char)byte}, 1);
        }
    }
    if (!bytes.failed && bytes.size) bg_utf8_append_lossy(&out->text, bytes.data, bytes.size);
    bg_status status = bytes.failed ? bg_fail_memory(err, bytes.capacity, "a decoded text") : BG_OK;
    bg_text_free(&bytes);
    bg_pieces_push(out, -1);
    return status;
}

/* The byte of a token "<0x41>", or -1. */
static int fallback_byte(const char *token, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    if (size != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = token[i] >= 'A' && token[i] <= 'F' ? (char)(token[i] + 32) : token[i];
        const char *digit = c ? strchr(digits, c) : NULL;
        if (!digit && !(i == 3 && c == '+')) return -1;
        value = digit ? value * 16 + (int)(digit - digits) : 0;
    }
    return value;
}

/* Ends a run of byte tokens: their text if they are UTF-8, else U+FFFD for each. */
static void end_bytes(bg_text *bytes, bg_pieces *out)
{
    if (!bytes->size) return;
    if (bg_utf8_valid(bytes->data, bytes->size) == bytes->size) {
        bg_text_append(&out->text, bytes->data, bytes->size);
        bg_pieces_push(out, -1);
    } else {
        for (size_t i = 0; i < bytes->size; i++) {
            bg_text_puts(&out->text, replacement);
            bg_pieces_push(out, -1);
        }
    }
    bytes->size = 0;
}

static bg_status byte_fallback_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                                      bg_error *err)
{
    (void)step;
    bg_text bytes = {0};
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        size_t size = bg_piece_size(in, t);
        int byte = fallback_byte(text, size);
        if (byte >= 0) {
            bg_text_append(&bytes, &(char){(char)byte}, 1);
            continue;
        }
        end_bytes(&bytes, out);
        bg_text_append(&out->text, text, size);
        bg_pieces_push(out, -1);
    }
    end_bytes(&bytes, out);
    bg_status status = bytes.failed ? bg_fail_memory(err, bytes.capacity, "a decoded text") : BG_OK;
    bg_text_free(&bytes);
    return status;
}

/* ---- WordPiece ------------------------------------------------------------------------------- */

static bg_status wordpiece_parse(const json_t *object, const char *where, bg_step *step,
                                 bg_error *err)
{
    BG_TRY(bg_json_bool(object, "cleanup", where, true, &step->cleanup, err));
    return bg_step_content(object, "prefix", "##", where, step, err);
}

/* Replaces every `from` in the text from `start` on; `to` is no longer. */
static void replace_all(bg_text *text, size_t start, const char *from, const char *to)
{
    size_t from_size = strlen(from), to_size = strlen(to), done = start;
    char *hit, *read;
    if (text->failed || !text->data) return;
    for (read = text->data + start;
         (hit = memmem(read, (size_t)(text->data + text->size - read), from, from_size));
         read = hit + from_size) {
        size_t between = (size_t)(hit - read);
        memmove(text->data + done, read, between);
        memcpy(text->data + done + between, to, to_size);
        done += between + to_size;
    }
    size_t rest = (size_t)(text->data + text->size - read);
    memmove(text->data + done, read, rest);
    text->size = done + rest;
}

/* The spaces that an English tokenizer puts where a writer would not, in this order. */
static const char *const cleanup[][2] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

static void clean_up(bg_text *text, size_t start)
{
    for (size_t i = 0; i < sizeof cleanup / sizeof *cleanup; i++)
        replace_all(text, start, cleanup[i][0], cleanup[i][1]);
}

static bg_status wordpiece_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                                  bg_error *err)
{
    (void)err;
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        size_t size = bg_piece_size(in, t), start = out->text.size;
        bool continues =
            size >= step->content_size && memcmp(text, step->content, step->content_size) == 0;
        if (t > 0 && continues) {
            text += step->content_size;
            size -= step->content_size;
        } else if (t > 0) {
            bg_text_append(&out->text, " ", 1);
        }
        bg_text_append(&out->text, text, size);
        if (step->cleanup) clean_up(&out->text, start);
        bg_pieces_push(out, -1);
    }
    return BG_OK;
}

/* ---- Metaspace and CTC ----------------------------------------------------------------------- */

/* The mark is a space, but in the first token, where it was put before the text. */
static bg_status metaspace_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                                  bg_error *err)
{
    (void)err;
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t), *end = text + bg_piece_size(in, t), *mark;
        bool dropped = t == 0 && step->prepend != BG_PREPEND_NEVER;
        while ((mark = memmem(text, (size_t)(end - text), step->content, step->content_size))) {
            bg_text_append(&out->text, text, (size_t)(mark - text));
            if (!dropped) bg_text_append(&out->text, " ", 1);
            text = mark + step->content_size;
        }
        bg_text_append(&out->text, text, (size_t)(end - text));
        bg_pieces_push(out, -1);
    }
    return BG_OK;
}

static bg_status ctc_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    const char *delimiter;
    BG_TRY(bg_json_bool(object, "cleanup", where, true, &step->cleanup, err));
    BG_TRY(bg_json_string(object, "word_delimiter_token", where, "|", &delimiter, err));
    BG_TRY(bg_step_content(object, "pad_token", "<pad>", where, step, err));
    if (!*delimiter || !step->content_size)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: CTC's \"pad_token\" and \"word_delimiter_token\" must not be empty; "
                       "correct the file",
                       where);
    step->delimiter = bg_strdup(delimiter);
    return step->delimiter ? BG_OK : bg_fail_memory(err, strlen(delimiter), "a tokenizer");
}

/* Connectionist temporal classification: a token repeated is one token, padding parts two. */
static bg_status ctc_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out, bg_error *err)
{
    (void)err;
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        size_t size = bg_piece_size(in, t), start = out->text.size;
        if (t > 0 && size == bg_piece_size(in, t - 1) &&
            memcmp(text, bg_piece_text(in, t - 1), size) == 0)
            continue;
        bg_text_append(&out->text, text, size);
        replace_all(&out->text, start, step->content, "");
        if (step->cleanup) {
            clean_up(&out->text, start);
            replace_all(&out->text, start, step->delimiter, " ");
        }
        if (out->text.size > start) bg_pieces_push(out, -1);
    }
    return BG_OK;
}

/* ---- editing --------------------------------------------------------------------------------- */

static bg_status fuse_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                             bg_error *err)
{
    (void)step;
    (void)err;
    for (size_t t = 0; t < in->n; t++)
        bg_text_append(&out->text, bg_piece_text(in, t), bg_piece_size(in, t));
    bg_pieces_push(out, -1);
    return BG_OK;
}

static bg_status replace_parse(const json_t *object, const char *where, bg_step *step,
                               bg_error *err)
{
    BG_TRY(bg_pattern_parse(object, "pattern", where, &step->pattern, err));
    return bg_step_content(object, "content", NULL, where, step, err);
}

static bg_status replace_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                                bg_error *err)
{
    bg_matches matches = {0};
    bg_status status = BG_OK;
    for (size_t t = 0; status == BG_OK && t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        matches.n = 0;
        status = bg_pattern_find(&step->pattern, text, bg_piece_size(in, t), &matches, err);
        for (size_t i = 0; status == BG_OK && i < matches.n; i++) {
            const bg_match *m = &matches.data[i];
            if (m->match)
                bg_text_append(&out->text, step->content, step->content_size);
            else
                bg_text_append(&out->text, text + m->begin, m->end - m->begin);
        }
        bg_pieces_push(out, -1);
    }
    bg_matches_free(&matches);
    return status;
}

static bg_status strip_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    int64_t start, stop;
    BG_TRY(bg_json_int(object, "start", where, 0, INT32_MAX, 0, false, &start, err));
    BG_TRY(bg_json_int(object, "stop", where, 0, INT32_MAX, 0, false, &stop, err));
    step->start = (size_t)start;
    step->stop = (size_t)stop;
    return bg_step_character(object, "content", NULL, where, step, err);
}

static bg_status strip_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                              bg_error *err)
{
    (void)err;
    size_t n = step->content_size;
    for (size_t t = 0; t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        size_t size = bg_piece_size(in, t);
        for (size_t i = 0; i < step->start && size >= n && !memcmp(text, step->content, n); i++) {
            text += n;
            size -= n;
        }
        for (size_t i = 0;
             i < step->stop && size >= n && !memcmp(text + size - n, step->content, n); i++)
            size -= n;
        bg_text_append(&out->text, text, size);
        bg_pieces_push(out, -1);
    }
    return BG_OK;
}

static bg_status suffix_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    BG_TRY(bg_step_content(object, "suffix", "</w>", where, step, err));
    return bg_pattern_literal(step->content, step->content_size, &step->pattern, err);
}

/* BPEDecoder: an end-of-word suffix is a space, but for that of the last token. */
static bg_status suffix_decode(const bg_step *step, const bg_pieces *in, bg_pieces *out,
                               bg_error *err)
{
    bg_matches matches = {0};
    bg_status status = BG_OK;
    for (size_t t = 0; status == BG_OK && t < in->n; t++) {
        const char *text = bg_piece_text(in, t);
        matches.n = 0;
        status = bg_pattern_find(&step->pattern, text, bg_piece_size(in, t), &matches, err);
        for (size_t i = 0; status == BG_OK && i < matches.n; i++) {
            const bg_match *m = &matches.data[i];
            if (!m->match)
                bg_text_append(&out->text, text + m->begin, m->end - m->begin);
            else if (t + 1 < in->n)
                bg_text_append(&out->text, " ", 1);
        }
        bg_pieces_push(out, -1);
    }
    bg_matches_free(&matches);
    return status;
}

const bg_step_kind bg_decoder_kinds[] = {
    {.type = "ByteLevel", .decode = byte_level_decode},
    {.type = "WordPiece", .parse = wordpiece_parse, .decode = wordpiece_decode},
    {.type = "Metaspace", .parse = bg_metaspace_parse, .decode = metaspace_decode},
    {.type = "CTC", .parse = ctc_parse, .decode = ctc_decode},
    {.type = "Fuse", .decode = fuse_decode},
    {.type = "Replace", .parse = replace_parse, .decode = replace_decode},
    {.type = "Strip", .parse = strip_parse, .decode = strip_decode},
    {.type = "ByteFallback", .decode = byte_fallback_decode},
    {.type = "BPEDecoder", .parse = suffix_parse, .decode = suffix_decode},
    {0},
};
