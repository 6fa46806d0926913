/* Added tokens: strings that become one token wherever they stand in a text, before anything else
 * looks at it. */
#include "core/alloc.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ---- the list -------------------------------------------------------------------------------- */

bg_status bg_added_push(bg_added *added, const bg_added_token *token, bg_error *err)
{
    if (added->n == added->capacity) {
        size_t capacity = added->capacity ? added->capacity * 2 : 8;
        bg_added_token *items = bg_realloc_array(added->items, capacity, sizeof *items);
        if (!items) return bg_fail_memory(err, capacity * sizeof *items, "added tokens");
        added->items = items;
        added->capacity = capacity;
    }
    bg_added_token *item = &added->items[added->n];
    *item = *token;
    item->normalized = NULL;
    item->content = bg_strndup(token->content, token->content_size);
    if (!item->content) return bg_fail_memory(err, token->content_size, "an added token");
    added->n++;
    return BG_OK;
}

bg_status bg_added_special(bg_added *added, const bg_vocab *model, const char *content,
                           bg_error *err)
{
    bg_added_token token = {.content = (char *)content,
                            .content_size = strlen(content),
                            .id = bg_vocab_find(model, content, strlen(content)),
                            .special = true};
    return token.id < 0 || !token.content_size ? BG_OK : bg_added_push(added, &token, err);
}

bg_status bg_added_settings(const json_t *item, const char *where, bg_added_token *token,
                            bg_error *err)
{
    BG_TRY(bg_json_bool(item, "single_word", where, false, &token->single_word, err));
    BG_TRY(bg_json_bool(item, "lstrip", where, false, &token->lstrip, err));
    BG_TRY(bg_json_bool(item, "rstrip", where, false, &token->rstrip, err));
    BG_TRY(bg_json_bool(item, "special", where, false, &token->special, err));
    return bg_json_bool(item, "normalized", where, !token->special, &token->is_normalized, err);
}

static bg_status parse_one(const json_t *item, const char *where, const bg_vocab *model,
                           bg_added_token *token, bg_error *err)
{
    const json_t *content = json_object_get(item, "content");
    if (!json_is_string(content))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: an added token has no \"content\"; the file is damaged", where);
    int64_t id;
    BG_TRY(bg_json_int(item, "id", where, 0, BG_MAX_TOKEN_ID - 1, 0, true, &id, err));
    token->content = (char *)json_string_value(content);
    token->content_size = json_string_length(content);
    int32_t known = bg_vocab_find(model, token->content, token->content_size);
    token->id = known >= 0 ? known : (int32_t)id;
    return bg_added_settings(item, where, token, err);
}

bg_status bg_added_parse(const json_t *root, const char *where, const bg_vocab *model,
                         bg_added *added, bg_error *err)
{
    const json_t *list = json_object_get(root, "added_tokens"), *item;
    size_t i;
    if (!list || json_is_null(list)) return BG_OK;
    if (!json_is_array(list))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"added_tokens\" must be an array; the file is damaged", where);
    json_array_foreach(list, i, item)
    {
        bg_added_token token = {0};
        BG_TRY(parse_one(item, where, model, &token, err));
        if (token.content_size) BG_TRY(bg_added_push(added, &token, err));
    }
    return BG_OK;
}

void bg_added_free(bg_added *added)
{
    for (size_t i = 0; i < added->n; i++) {
        bg_free(added->items[i].content);
        bg_free(added->items[i].normalized);
    }
    bg_free(added->items);
    bg_free(added->raw.order);
    bg_free(added->normalized.order);
    bg_vocab_free(&added->vocab);
    bg_vocab_free(&added->specials);
    *added = (bg_added){0};
}

/* ---- look-up tables -------------------------------------------------------------------------- */

/* What is looked for in the text. */
static const char *needle(const bg_added_token *token, size_t *size)
{
    *size = token->normalized ? token->normalized_size : token->content_size;
    return token->normalized ? token->normalized : token->content;
}

static int compare(const void *a, const void *b, void *items)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    size_t n, m;
    const char *s = needle((bg_added_token *)items + i, &n);
    const char *t = needle((bg_added_token *)items + j, &m);
    int order = memcmp(s, t, n < m ? n : m);
    if (order) return order;
    if (n != m) return n < m ? -1 : 1;
    return i < j ? -1 : i > j;
}

/* `last` has the number of the last token for each entry of added->vocab: a content given twice
 * counts as it was given last. */
static bg_status build_set(const bg_added *added, const uint32_t *last, bool normalized,
                           bg_added_set *set, bg_error *err)
{
    set->order = bg_alloc_array(added->n, sizeof *set->order);
    if (!set->order) return bg_fail_memory(err, added->n * sizeof *set->order, "added tokens");
    for (size_t i = 0; i < added->n; i++) {
        size_t size;
        const bg_added_token *token = &added->items[i];
        needle(token, &size);
        const bg_vocab_entry *entry = bg_vocab_entry_of(&added->vocab, token->id);
        if (last[entry - added->vocab.entries] != i) continue;
        if (size && token->is_normalized == normalized) set->order[set->n++] = (uint32_t)i;
    }
    qsort_r(set->order, set->n, sizeof *set->order, compare, added->items);
    size_t at = 0;
    for (unsigned b = 0; b <= 256; b++) {
        for (size_t size; at < set->n; at++)
            if ((uint8_t)needle(&added->items[set->order[at]], &size)[0] >= b) break;
        set->first[b] = (uint32_t)at;
    }
    return BG_OK;
}

/* Puts the normalized contents in place. */
static bg_status normalize(bg_added *added, const bg_steps *normalizers, bg_error *err)
{
    bg_pieces pieces = {0}, spare = {0};
    bg_status status = BG_OK;
    for (size_t i = 0; status == BG_OK && normalizers->n && i < added->n; i++) {
        bg_added_token *token = &added->items[i];
        if (!token->is_normalized) continue;
        bg_pieces_clear(&pieces);
        bg_pieces_add(&pieces, token->content, token->content_size);
        status = bg_pieces_check(&pieces, err);
        if (status == BG_OK) status = bg_steps_apply(normalizers, &pieces, &spare, err);
        if (status != BG_OK) break;
        token->normalized_size = pieces.text.size;
        token->normalized = bg_strndup(pieces.text.data ? pieces.text.data : "", pieces.text.size);
        if (!token->normalized) status = bg_fail_memory(err, pieces.text.size, "an added token");
    }
    bg_pieces_free(&pieces);
    bg_pieces_free(&spare);
    return status;
}

bg_status bg_added_finish(bg_added *added, const bg_steps *normalizers, bg_error *err)
{
    size_t bytes = 0;
    int32_t max_id = -1;
    for (size_t i = 0; i < added->n; i++) {
        bytes += added->items[i].content_size;
        if (added->items[i].id > max_id) max_id = added->items[i].id;
    }
    BG_TRY(bg_vocab_reserve(&added->vocab, added->n, bytes, max_id, err));
    BG_TRY(bg_vocab_reserve(&added->specials, added->n, bytes, 0, err));
    for (size_t i = 0; i < added->n; i++) {
        const bg_added_token *token = &added->items[i];
        const bg_vocab_entry *other = bg_vocab_entry_of(&added->vocab, token->id);
        if (other && (other->size != token->content_size ||
                      memcmp(added->vocab.bytes + other->offset, token->content, other->size) != 0))
            return bg_fail(err, BG_ERR_FORMAT,
                           "the added tokens \"%.60s\" and \"%.60s\" have the same id %d; correct "
                           "the tokenizer's file",
                           added->vocab.bytes + other->offset, token->content, (int)token->id);
        bg_vocab_add(&added->vocab, token->content, token->content_size, token->id);
        if (token->special) bg_vocab_add(&added->specials, token->content, token->content_size, 0);
    }
    BG_TRY(normalize(added, normalizers, err));
    uint32_t *last = bg_alloc_array(added->n, sizeof *last);
    if (!last) return bg_fail_memory(err, added->n * sizeof *last, "added tokens");
    for (size_t i = 0; i < added->n; i++)
        last[bg_vocab_entry_of(&added->vocab, added->items[i].id) - added->vocab.entries] =
            (uint32_t)i;
    bg_status status = build_set(added, last, false, &added->raw, err);
    if (status == BG_OK) status = build_set(added, last, true, &added->normalized, err);
    bg_free(last);
    return status;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* The longest token of the set at the start of the text, or NULL. The range of sorted strings that
 * agree with the text so far is narrowed byte by byte. */
static const bg_added_token *longest_at(const bg_added *added, const bg_added_set *set,
                                        const char *text, size_t size, size_t *length)
{
    const bg_added_token *found = NULL;
    size_t low = set->first[(uint8_t)text[0]], high = set->first[(uint8_t)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        size_t n;
        const bg_added_token *token = &added->items[set->order[low]];
        needle(token, &n);
        if (n == depth) { /* the shortest sorts first */
            found = token;
            *length = depth;
            while (low < high && (needle(&added->items[set->order[low]], &n), n == depth)) low++;
        }
        if (depth == size) break;
        uint8_t wanted = (uint8_t)text[depth];
        size_t bounds[2];
        for (int upper = 0; upper < 2; upper++) {
            size_t a = low, b = high;
            while (a < b) {
                size_t middle = (a + b) / 2;
                uint8_t byte = (uint8_t)needle(&added->items[set->order[middle]], &n)[depth];
                if (byte < wanted || (upper && byte == wanted))
                    a = middle + 1;
                else
                    b = middle;
            }
            bounds[upper] = a;
        }
        low = bounds[0];
        high = bounds[1];
    }
    return found;
}

static bool inside_word(const char *text, size_t size, size_t begin, size_t end)
{
    size_t n;
    return (begin > 0 && bg_is_word(bg_utf8_last(text, begin, &n))) ||
           (end < size && bg_is_word(bg_utf8_next(text + end, &n)));
}

static void add_text(bg_pieces *out, const char *text, size_t size, bool first)
{
    size_t n = out->n;
    bg_pieces_add(out, text, size);
    if (out->n > n) out->items[n].first = first;
}

static void split(const bg_added *added, const bg_added_set *set, const char *text, size_t size,
                  bool first, bg_pieces *out)
{
    size_t done = 0, length = 0, n;
    for (size_t i = 0; i < size;) {
        const bg_added_token *token = longest_at(added, set, text + i, size - i, &length);
        if (!token) {
            i++;
            continue;
        }
        size_t begin = i, end = i + length;
        i = end;
        if (token->single_word && inside_word(text, size, begin, end)) continue;
        while (token->lstrip && begin > done &&
               bg_is_whitespace(bg_utf8_last(text + done, begin - done, &n)))
            begin -= n;
        while (token->rstrip && end < size && bg_is_whitespace(bg_utf8_next(text + end, &n)))
            end += n;
        if (begin > done) add_text(out, text + done, begin - done, first && done == 0);
        bg_pieces_push(out, token->id);
        done = end;
    }
    if (done < size) add_text(out, text + done, size - done, first && done == 0);
}

bg_status bg_added_split(const bg_added *added, const bg_added_set *set, const bg_pieces *in,
                         bg_pieces *out, bg_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        if (in->items[i].id >= 0)
            bg_pieces_push(out, in->items[i].id);
        else
            split(added, set, bg_piece_text(in, i), bg_piece_size(in, i), in->items[i].first, out);
    }
    return bg_pieces_check(out, err);
}
