/* Encoding: from a text to its ids, and from ids to rows with special tokens, cut and padded. */
#include "core/alloc.h"
#include "core/checked.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <string.h>

/* ---- one text -------------------------------------------------------------------------------- */

static bg_status run(const bg_tokenizer *t, const char *text, size_t size, bg_ids *ids,
                     bg_pieces *pieces, bg_pieces *spare, bg_error *err)
{
    size_t valid = bg_utf8_valid(text, size);
    if (valid < size)
        return bg_fail(err, BG_ERR_FORMAT,
                       "the text is not valid UTF-8 at byte %zu; convert it to UTF-8", valid);
    bg_pieces_add(spare, text, size);
    BG_TRY(bg_pieces_check(spare, err));
    if (spare->n) spare->items[0].first = true;
    BG_TRY(bg_added_split(&t->added, &t->added.raw, spare, pieces, err));
    BG_TRY(bg_steps_apply(&t->normalizers, pieces, spare, err));
    if (t->added.normalized.n) {
        bg_pieces_clear(spare);
        BG_TRY(bg_added_split(&t->added, &t->added.normalized, pieces, spare, err));
        bg_pieces done = *spare;
        *spare = *pieces;
        *pieces = done;
    }
    BG_TRY(bg_steps_apply(&t->pretokenizers, pieces, spare, err));
    for (size_t i = 0; i < pieces->n; i++) {
        if (pieces->items[i].id >= 0)
            bg_ids_push(ids, pieces->items[i].id);
        else
            BG_TRY(
                t->kind->encode(t, bg_piece_text(pieces, i), bg_piece_size(pieces, i), ids, err));
    }
    return bg_ids_check(ids, err);
}

bg_status bg_encode_text(const bg_tokenizer *t, const char *text, size_t size, bg_ids *ids,
                         bg_error *err)
{
    bg_pieces pieces = {0}, spare = {0};
    bg_status status = run(t, text, size, ids, &pieces, &spare, err);
    bg_pieces_free(&pieces);
    bg_pieces_free(&spare);
    return status;
}

bg_status bg_tokenizer_encode_truncated(const bg_tokenizer *tokenizer, const char *text,
                                        size_t size, bool add_special, size_t max_length,
                                        int32_t **ids, size_t *n, bg_error *err)
{
    const bg_template *template = &tokenizer->single;
    size_t added = add_special ? bg_template_added(template) : 0;
    *ids = NULL;
    *n = 0;
    if (max_length < added)
        return bg_fail(err, BG_ERR_USAGE,
                       "a maximum length of %zu leaves no room for the tokenizer's %zu special "
                       "tokens; raise it",
                       max_length, added);
    bg_ids own = {0};
    bg_status status = bg_encode_text(tokenizer, text, size, &own, err);
    size_t texts = 0; /* places of the template that the text is put into */
    for (size_t i = 0; i < template->n; i++) texts += template->items[i].id == BG_TEMPLATE_A;
    size_t keep = texts ? bg_min_size(own.n, (max_length - added) / texts) : 0, total = 0;
    size_t from = tokenizer->truncate_left ? own.n - keep : 0;
    for (size_t i = 0; i < template->n; i++)
        total += template->items[i].id == BG_TEMPLATE_A ? keep : 1;
    int32_t *all = status == BG_OK ? bg_alloc_array(total, sizeof *all) : NULL;
    if (status == BG_OK && !all) status = bg_fail_memory(err, total * sizeof *all, "token ids");
    for (size_t i = 0; status == BG_OK && i < template->n; i++) {
        if (template->items[i].id == BG_TEMPLATE_A) {
            if (keep) memcpy(all + *n, own.data + from, keep * sizeof *all);
            *n += keep;
        } else if (add_special) {
            all[(*n)++] = template->items[i].id;
        }
    }
    if (status == BG_OK) *ids = all;
    bg_free(own.data);
    return status;
}

BG_API bg_status bg_tokenizer_encode(const bg_tokenizer *tokenizer, const char *text, size_t size,
                                     bool add_special, int32_t **ids, size_t *n, bg_error *err)
{
    return bg_tokenizer_encode_truncated(tokenizer, text, size, add_special, SIZE_MAX, ids, n, err);
}

BG_API void bg_ids_free(int32_t *ids)
{
    bg_free(ids);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* How many ids of each text stay, of n[0] and n[1]. */
static bg_status truncate(const bg_tokenizer *t, bool pair, size_t added, size_t n[2],
                          bg_error *err)
{
    const bg_truncation *how = &t->truncation;
    if (how->max_length < added)
        return bg_fail(
            err, BG_ERR_USAGE,
            "the tokenizer's own maximum length of %zu leaves no room for its %zu special "
            "tokens; encode without truncation",
            how->max_length, added);
    size_t limit = how->max_length - added;
    if (n[0] + n[1] <= limit) return BG_OK;
    if (limit == 0) {
        n[0] = n[1] = 0;
    } else if (how->strategy == BG_LONGEST_FIRST) {
        /* The longer one gives until both are equal; then each has half, the longer the odd one. */
        size_t *s = n[0] > n[1] ? &n[1] : &n[0], *l = n[0] > n[1] ? &n[0] : &n[1];
        if (!pair) {
            n[0] = limit;
        } else if (*s <= limit / 2) {
            *l = limit - *s;
        } else {
            *s = limit / 2;
            *l = limit - *s;
        }
    } else {
        size_t *which = how->strategy == BG_ONLY_FIRST ? &n[0] : &n[1];
        size_t excess = n[0] + n[1] - limit;
        if (*which <= excess)
            return bg_fail(err, BG_ERR_USAGE,
                           "the tokenizer cuts only the %s text to reach %zu tokens, and that is "
                           "too short; encode without truncation",
                           how->strategy == BG_ONLY_FIRST ? "first" : "second", how->max_length);
        *which -= excess;
    }
    return BG_OK;
}

/* Makes room for n ids; all three arrays are one allocation. */
static bg_status reserve(bg_encoding *e, size_t n, bg_error *err)
{
    e->ids = bg_alloc_array(n, 2 * sizeof *e->ids + 1);
    if (!e->ids) return bg_fail_memory(err, n * 9, "token ids");
    e->type_ids = e->ids + n;
    e->attention_mask = (uint8_t *)(e->type_ids + n);
    return BG_OK;
}

static bg_status lay_out(const bg_tokenizer *t, const bg_tokenizer_input *input,
                         const bg_encode_options *options, bg_ids texts[2], bg_encoding *e,
                         bg_error *err)
{
    const bg_template *template = input->pair ? &t->pair : &t->single;
    size_t added = options->add_special ? bg_template_added(template) : 0, total = 0;
    BG_TRY(bg_encode_text(t, input->text, input->size, &texts[0], err));
    if (input->pair) BG_TRY(bg_encode_text(t, input->pair, input->pair_size, &texts[1], err));
    size_t keep[2] = {texts[0].n, texts[1].n};
    if (options->truncate && t->truncation.enabled)
        BG_TRY(truncate(t, input->pair != NULL, added, keep, err));
    for (size_t i = 0; i < template->n; i++) {
        int32_t id = template->items[i].id;
        total += id >= 0 ? 1 : keep[id == BG_TEMPLATE_B];
    }
    BG_TRY(reserve(e, total, err));
    for (size_t i = 0; i < template->n; i++) {
        const bg_template_piece *piece = &template->items[i];
        if (piece->id >= 0 && !options->add_special) continue;
        const bg_ids *text = &texts[piece->id == BG_TEMPLATE_B];
        size_t n = piece->id >= 0 ? 1 : keep[piece->id == BG_TEMPLATE_B];
        const int32_t *from = &piece->id;
        if (piece->id < 0) from = text->data + (t->truncation.left ? text->n - n : 0);
        if (n) memcpy(e->ids + e->n, from, n * sizeof *from);
        for (size_t j = 0; j < n; j++) e->type_ids[e->n + j] = piece->type_id;
        e->n += n;
    }
    memset(e->attention_mask, 1, e->n);
    return BG_OK;
}

static bg_status pad(const bg_padding *how, size_t length, bg_encoding *e, bg_error *err)
{
    bg_encoding padded = {.n = length};
    if (e->n >= length) return BG_OK;
    BG_TRY(reserve(&padded, length, err));
    size_t more = length - e->n, at = how->left ? more : 0;
    for (size_t i = 0; i < length; i++) {
        bool own = i >= at && i < at + e->n;
        padded.ids[i] = own ? e->ids[i - at] : how->id;
        padded.type_ids[i] = own ? e->type_ids[i - at] : how->type_id;
        padded.attention_mask[i] = own;
    }
    bg_free(e->ids);
    *e = padded;
    return BG_OK;
}

BG_API bg_status bg_tokenizer_encode_batch(const bg_tokenizer *tokenizer,
                                           const bg_tokenizer_input *inputs, size_t n,
                                           const bg_encode_options *options, bg_encoding **out,
                                           bg_error *err)
{
    const bg_padding *how = &tokenizer->padding;
    *out = NULL;
    bg_encoding *rows = bg_calloc(n, sizeof *rows);
    if (!rows) return bg_fail_memory(err, n * sizeof *rows, "token ids");
    bg_status status = BG_OK;
    size_t length = how->length;
    for (size_t i = 0; status == BG_OK && i < n; i++) {
        bg_ids texts[2] = {{0}};
        status = lay_out(tokenizer, &inputs[i], options, texts, &rows[i], err);
        bg_free(texts[0].data);
        bg_free(texts[1].data);
        if (!how->length) length = bg_max_size(length, rows[i].n);
    }
    if (how->multiple_of && length % how->multiple_of)
        length += how->multiple_of - length % how->multiple_of;
    for (size_t i = 0; status == BG_OK && options->pad && how->enabled && i < n; i++)
        status = pad(how, length, &rows[i], err);
    if (status == BG_OK)
        *out = rows;
    else
        bg_encodings_free(rows, n);
    return status;
}

BG_API void bg_encodings_free(bg_encoding *encodings, size_t n)
{
    for (size_t i = 0; encodings && i < n; i++) bg_free(encodings[i].ids);
    bg_free(encodings);
}

/* ---- settings -------------------------------------------------------------------------------- */

/* Which of `n` names the string at `key` is. */
static bg_status read_choice(const json_t *object, const char *key, const char *const *names, int n,
                             const char *where, int *out, bg_error *err)
{
    const char *name;
    BG_TRY(bg_json_string(object, key, where, names[0], &name, err));
    for (*out = 0; *out < n; ++*out)
        if (strcmp(name, names[*out]) == 0) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: \"%s\" is \"%.40s\", which is not known; correct the "
                   "file",
                   where, key, name);
}

static const char *const directions[] = {"Right", "Left"};

/* No model has contexts as long as this. */
enum { LONGEST_ROW = 1 << 28 };

static bg_status read_truncation(const json_t *object, const char *where, bg_truncation *out,
                                 bg_error *err)
{
    static const char *const strategies[] = {"LongestFirst", "OnlyFirst", "OnlySecond"};
    int direction, strategy;
    int64_t max_length;
    BG_TRY(read_choice(object, "direction", directions, 2, where, &direction, err));
    BG_TRY(read_choice(object, "strategy", strategies, 3, where, &strategy, err));
    BG_TRY(bg_json_int(object, "max_length", where, 0, INT64_MAX, 512, false, &max_length, err));
    *out =
        (bg_truncation){.enabled = true, .left = direction == 1, .max_length = (size_t)max_length};
    out->strategy = strategy == 0   ? BG_LONGEST_FIRST
                    : strategy == 1 ? BG_ONLY_FIRST
                                    : BG_ONLY_SECOND;
    return BG_OK;
}

static bg_status read_padding(const json_t *object, const char *where, bg_padding *out,
                              bg_error *err)
{
    const json_t *strategy = json_object_get(object, "strategy");
    int direction;
    int64_t length = 0, multiple, id, type_id;
    BG_TRY(read_choice(object, "direction", directions, 2, where, &direction, err));
    if (json_is_object(strategy))
        BG_TRY(bg_json_int(strategy, "Fixed", where, 0, LONGEST_ROW, 0, true, &length, err));
    BG_TRY(
        bg_json_int(object, "pad_to_multiple_of", where, 0, LONGEST_ROW, 0, false, &multiple, err));
    BG_TRY(bg_json_int(object, "pad_id", where, 0, BG_MAX_TOKEN_ID - 1, 0, false, &id, err));
    BG_TRY(bg_json_int(object, "pad_type_id", where, 0, INT32_MAX, 0, false, &type_id, err));
    *out = (bg_padding){.enabled = true,
                        .left = direction == 1,
                        .length = (size_t)length,
                        .multiple_of = (size_t)multiple,
                        .id = (int32_t)id,
                        .type_id = (int32_t)type_id};
    return BG_OK;
}

bg_status bg_layout_parse(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err)
{
    const json_t *truncation = json_object_get(root, "truncation");
    const json_t *padding = json_object_get(root, "padding");
    if (json_is_object(truncation)) BG_TRY(read_truncation(truncation, where, &t->truncation, err));
    return json_is_object(padding) ? read_padding(padding, where, &t->padding, err) : BG_OK;
}
