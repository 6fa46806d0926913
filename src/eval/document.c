#include "eval/document.h"

#include "eval/words.h"

#include <string.h>
#include <utf8proc.h>

typedef struct {
    const char *data;
    size_t size;
} piece;

static void append(bg_text *out, piece p)
{
    bg_text_append(out, p.data, p.size);
}

static bg_status string_of(const bg_column *column, size_t row, piece *out, bg_error *err)
{
    return bg_column_string(column, row, &out->data, &out->size, err);
}

/* ---- putting a document together ------------------------------------------------------------- */

static void begin(bg_document *d)
{
    d->text.size = d->context_size = d->n_choices = 0;
}

static void end_context(bg_document *d)
{
    d->context_size = d->text.size;
}

/* What was appended from `start` on becomes a choice; its first `delimiter` bytes are not its own.
 */
static void end_choice(bg_document *d, size_t start, size_t delimiter)
{
    const char *choice = d->text.data ? d->text.data + start + delimiter : "";
    size_t size = d->text.size - start;
    d->choices[d->n_choices].begin = start;
    d->choices[d->n_choices].size = size;
    d->choices[d->n_choices++].characters = bg_count_characters(choice, size - delimiter);
}

static void add_choice(bg_document *d, piece choice)
{
    size_t start = d->text.size;
    bg_text_puts(&d->text, " ");
    append(&d->text, choice);
    if (!d->text.failed) end_choice(d, start, 1);
}

static bg_status finish(const bg_column *column, size_t row, int64_t gold, bg_document *d,
                        bg_error *err)
{
    if (d->text.failed) return bg_fail_memory(err, d->text.size, "a document");
    if (gold < 0 || gold >= (int64_t)d->n_choices)
        return bg_table_fail(column->table, row, err,
                             "the label is %lld, and there are %zu answers to choose from; give "
                             "data with labels",
                             (long long)gold, d->n_choices);
    d->gold = (size_t)gold;
    return BG_OK;
}

static bg_status check_count(const bg_column *column, size_t row, size_t n, bg_error *err)
{
    if (n >= 1 && n <= BG_MOST_CHOICES) return BG_OK;
    return bg_table_fail(column->table, row, err,
                         "there are %zu answers to choose from; there must be 1 to %d", n,
                         BG_MOST_CHOICES);
}

/* ---- one builder for each data set ----------------------------------------------------------- */

bg_status bg_document_sst2(const bg_column *const *columns, size_t row, bg_document *d,
                           bg_error *err)
{
    piece sentence;
    int64_t label;
    BG_TRY(string_of(columns[0], row, &sentence, err));
    BG_TRY(bg_column_int(columns[1], row, &label, err));
    begin(d);
    append(&d->text, sentence);
    bg_text_puts(&d->text, "\nQuestion: Is this sentence positive or negative?\nAnswer:");
    end_context(d);
    add_choice(d, (piece){"negative", 8});
    add_choice(d, (piece){"positive", 8});
    return finish(columns[1], row, label, d, err);
}

bg_status bg_document_boolq(const bg_column *const *columns, size_t row, bg_document *d,
                            bg_error *err)
{
    piece passage, question;
    int64_t label;
    BG_TRY(string_of(columns[0], row, &passage, err));
    BG_TRY(string_of(columns[1], row, &question, err));
    BG_TRY(bg_column_int(columns[2], row, &label, err));
    begin(d);
    append(&d->text, passage);
    bg_text_puts(&d->text, "\nQuestion: ");
    append(&d->text, question);
    bg_text_puts(&d->text, "?\nAnswer:");
    end_context(d);
    add_choice(d, (piece){"no", 2});
    add_choice(d, (piece){"yes", 3});
    return finish(columns[2], row, label, d, err);
}

bg_status bg_document_piqa(const bg_column *const *columns, size_t row, bg_document *d,
                           bg_error *err)
{
    piece goal, first, second;
    int64_t label;
    BG_TRY(string_of(columns[0], row, &goal, err));
    BG_TRY(string_of(columns[1], row, &first, err));
    BG_TRY(string_of(columns[2], row, &second, err));
    BG_TRY(bg_column_int(columns[3], row, &label, err));
    begin(d);
    bg_text_puts(&d->text, "Question: ");
    append(&d->text, goal);
    bg_text_puts(&d->text, "\nAnswer:");
    end_context(d);
    add_choice(d, first);
    add_choice(d, second);
    return finish(columns[3], row, label, d, err);
}

bg_status bg_document_arc(const bg_column *const *columns, size_t row, bg_document *d,
                          bg_error *err)
{
    piece question, key;
    const bg_value *texts, *labels;
    size_t n, n_labels;
    BG_TRY(string_of(columns[0], row, &question, err));
    BG_TRY(bg_column_strings(columns[1], row, &texts, &n, err));
    BG_TRY(bg_column_strings(columns[2], row, &labels, &n_labels, err));
    BG_TRY(string_of(columns[3], row, &key, err));
    BG_TRY(check_count(columns[1], row, n, err));
    begin(d);
    bg_text_puts(&d->text, "Question: ");
    append(&d->text, question);
    bg_text_puts(&d->text, "\nAnswer:");
    end_context(d);
    for (size_t i = 0; i < n; i++) add_choice(d, (piece){texts[i].string, texts[i].size});
    int64_t gold = 0;
    while (gold < (int64_t)n_labels &&
           (labels[gold].size != key.size || memcmp(labels[gold].string, key.data, key.size) != 0))
        gold++;
    return finish(columns[3], row, gold == (int64_t)n_labels ? -1 : gold, d, err);
}

/* ---- HellaSwag ------------------------------------------------------------------------------- */

/* str.capitalize: the first character in title case, the rest in lower case. */
static void append_capitalized(bg_text *out, piece p)
{
    for (size_t at = 0; at < p.size;) {
        utf8proc_int32_t c;
        utf8proc_uint8_t encoded[4];
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)p.data + at,
                                              (utf8proc_ssize_t)(p.size - at), &c);
        if (n <= 0) {
            bg_text_append(out, p.data + at++, 1);
            continue;
        }
        c = at == 0 ? utf8proc_totitle(c) : utf8proc_tolower(c);
        bg_text_append(out, (const char *)encoded, (size_t)utf8proc_encode_char(c, encoded));
        at += (size_t)n;
    }
}

/* Replaces each `from` in the text behind `start`, going forward, by the shorter or equal `to`. */
static void replace(bg_text *text, size_t start, const char *from, const char *to)
{
    const size_t n = strlen(from), m = strlen(to);
    size_t out = start;
    for (size_t at = start; at < text->size;) {
        bool here = text->size - at >= n && memcmp(text->data + at, from, n) == 0;
        memmove(text->data + out, here ? to : text->data + at, here ? m : 1);
        out += here ? m : 1;
        at += here ? n : 1;
    }
    text->size = out;
}

/* Removes what is in brackets, as the regular expression \[.*?\] finds it. */
static void remove_brackets(bg_text *text, size_t start)
{
    size_t out = start;
    for (size_t at = start; at < text->size;) {
        size_t end = at;
        if (text->data[at] == '[')
            while (end < text->size && text->data[end] != ']' && text->data[end] != '\n') end++;
        if (end > at && end < text->size && text->data[end] == ']')
            at = end + 1;
        else
            text->data[out++] = text->data[at++];
    }
    text->size = out;
}

/* Cleans the text behind `start` of what is left of WikiHow's markup. */
static void clean(bg_text *text, size_t start)
{
    if (text->failed || text->size == start) return;
    text->size -= bg_trailing_space(text->data + start, text->size - start);
    size_t leading = bg_leading_space(text->data + start, text->size - start);
    memmove(text->data + start, text->data + start + leading, text->size - start - leading);
    text->size -= leading;
    replace(text, start, " [title]", ". ");
    remove_brackets(text, start);
    replace(text, start, "  ", " ");
}

bg_status bg_document_hellaswag(const bg_column *const *columns, size_t row, bg_document *d,
                                bg_error *err)
{
    piece activity, a, b;
    const bg_value *endings;
    size_t n;
    int64_t label;
    BG_TRY(string_of(columns[0], row, &activity, err));
    BG_TRY(string_of(columns[1], row, &a, err));
    BG_TRY(string_of(columns[2], row, &b, err));
    BG_TRY(bg_column_strings(columns[3], row, &endings, &n, err));
    BG_TRY(bg_column_int(columns[4], row, &label, err));
    BG_TRY(check_count(columns[3], row, n, err));
    begin(d);
    append(&d->text, activity);
    bg_text_puts(&d->text, ": ");
    append(&d->text, a);
    bg_text_puts(&d->text, " ");
    append_capitalized(&d->text, b);
    clean(&d->text, 0);
    end_context(d);
    for (size_t i = 0; i < n; i++) {
        size_t start = d->text.size;
        bg_text_puts(&d->text, " ");
        bg_text_append(&d->text, endings[i].string, endings[i].size);
        clean(&d->text, start + 1);
        if (!d->text.failed) end_choice(d, start, 1);
    }
    return finish(columns[4], row, label, d, err);
}

bg_status bg_document_lambada(const bg_column *const *columns, size_t row, bg_document *d,
                              bg_error *err)
{
    piece text;
    BG_TRY(string_of(columns[0], row, &text, err));
    size_t last = text.size;
    while (last > 0 && text.data[last - 1] != ' ') last--;
    begin(d);
    if (last > 0) bg_text_append(&d->text, text.data, last - 1);
    end_context(d);
    add_choice(d, (piece){text.data + last, text.size - last});
    return finish(columns[0], row, 0, d, err);
}
