#include "core/alloc.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <string.h>

static const bg_step_kind *find_kind(const bg_step_kind *kinds, const char *type)
{
    while (kinds->type && strcmp(kinds->type, type) != 0) kinds++;
    return kinds->type ? kinds : NULL;
}

bg_step *bg_steps_add(bg_steps *steps, const bg_step_kind *kinds, const char *type)
{
    if (steps->n == steps->capacity) {
        size_t capacity = steps->capacity ? steps->capacity * 2 : 4;
        bg_step *items = bg_realloc_array(steps->items, capacity, sizeof *items);
        if (!items) return NULL;
        steps->items = items;
        steps->capacity = capacity;
    }
    bg_step *step = &steps->items[steps->n++];
    *step = (bg_step){.kind = find_kind(kinds, type)};
    return step;
}

static bg_status parse(const json_t *value, const char *role, const char *list,
                       const bg_step_kind *kinds, const char *where, bg_steps *steps, bg_error *err)
{
    if (!value || json_is_null(value)) return BG_OK;
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"%s\" must be an object with a \"type\"; the file is damaged", where,
                       role);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *items = json_object_get(value, list), *item;
        size_t i;
        if (!json_is_array(items))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: a Sequence must have an array \"%s\"; the file "
                           "is damaged",
                           where, list);
        json_array_foreach(items, i, item)
        {
            BG_TRY(parse(item, role, list, kinds, where, steps, err));
        }
        return BG_OK;
    }
    if (!find_kind(kinds, type))
        return bg_fail(
            err, BG_ERR_UNSUPPORTED,
            "%s: the %s type \"%s\" is not supported; bitgauge cannot use this tokenizer", where,
            role, type);
    bg_step *step = bg_steps_add(steps, kinds, type);
    if (!step) return bg_fail_memory(err, sizeof *step, "a tokenizer");
    return step->kind->parse ? step->kind->parse(value, where, step, err) : BG_OK;
}

bg_status bg_steps_parse(const json_t *object, const char *key, const char *list,
                         const bg_step_kind *kinds, const char *where, bg_steps *steps,
                         bg_error *err)
{
    return parse(json_object_get(object, key), key, list, kinds, where, steps, err);
}

void bg_steps_free(bg_steps *steps)
{
    for (size_t i = 0; i < steps->n; i++) {
        bg_pattern_free(&steps->items[i].pattern);
        bg_free(steps->items[i].content);
        bg_free(steps->items[i].delimiter);
        bg_charsmap_free(&steps->items[i].charsmap);
    }
    bg_free(steps->items);
    *steps = (bg_steps){0};
}

/* No language needs this much: a file whose steps blow a text up is damaged or hostile. */
static bg_status check_growth(size_t before, size_t now, bg_error *err)
{
    if (now <= 64 * before + (1 << 20)) return BG_OK;
    return bg_fail(
        err, BG_ERR_FORMAT,
        "the tokenizer's normalizer makes %zu bytes of text into %zu; its file is damaged, "
        "download it again",
        before, now);
}

bg_status bg_steps_apply(const bg_steps *steps, bg_pieces *pieces, bg_pieces *spare, bg_error *err)
{
    const size_t before = pieces->text.size;
    for (size_t s = 0; s < steps->n; s++) {
        const bg_step *step = &steps->items[s];
        bg_pieces_clear(spare);
        for (size_t i = 0; i < pieces->n; i++) {
            if (pieces->items[i].id >= 0) {
                bg_pieces_push(spare, pieces->items[i].id);
                continue;
            }
            size_t done = spare->n;
            spare->at_start = pieces->items[i].first;
            BG_TRY(step->kind->apply(step, bg_piece_text(pieces, i), bg_piece_size(pieces, i),
                                     spare, err));
            bg_pieces_cut(spare);
            if (spare->n > done) spare->items[done].first = spare->at_start;
        }
        bg_pieces done = *spare;
        *spare = *pieces;
        *pieces = done;
        BG_TRY(bg_pieces_check(pieces, err));
        BG_TRY(check_growth(before, pieces->text.size, err));
    }
    return BG_OK;
}

bg_status bg_step_content(const json_t *object, const char *key, const char *fallback,
                          const char *where, bg_step *step, bg_error *err)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_is_string(value) ? json_string_value(value) : fallback;
    if (!text || (value && !json_is_string(value)))
        return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" must be a string; correct the file", where,
                       key);
    step->content_size = json_is_string(value) ? json_string_length(value) : strlen(text);
    step->content = bg_strndup(text, step->content_size);
    return step->content ? BG_OK : bg_fail_memory(err, step->content_size, "a tokenizer");
}

bg_status bg_step_character(const json_t *object, const char *key, const char *fallback,
                            const char *where, bg_step *step, bg_error *err)
{
    size_t n = 0;
    BG_TRY(bg_step_content(object, key, fallback, where, step, err));
    if (step->content_size) step->character = bg_utf8_next(step->content, &n);
    if (n && n == step->content_size) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT, "%s: \"%s\" must be one character; correct the file", where,
                   key);
}

bg_status bg_metaspace_parse(const json_t *object, const char *where, bg_step *step, bg_error *err)
{
    static const char *const schemes[] = {"always", "first", "never"};
    const char *scheme;
    bool add_prefix_space;
    BG_TRY(bg_step_character(object, "replacement", "\xE2\x96\x81", where, step, err));
    BG_TRY(bg_json_bool(object, "split", where, true, &step->split, err));
    /* Files from before "prepend_scheme" have "add_prefix_space". */
    BG_TRY(bg_json_bool(object, "add_prefix_space", where, true, &add_prefix_space, err));
    BG_TRY(bg_json_string(object, "prepend_scheme", where, add_prefix_space ? "always" : "never",
                          &scheme, err));
    for (int i = 0; i < 3; i++) {
        if (strcmp(scheme, schemes[i]) != 0) continue;
        if (!add_prefix_space && i != BG_PREPEND_NEVER) break;
        step->prepend = (bg_prepend_scheme)i;
        return BG_OK;
    }
    return bg_fail(
        err, BG_ERR_FORMAT,
        "%s: Metaspace's \"prepend_scheme\" is \"%.40s\", not always, first or never, or "
        "\"add_prefix_space\" contradicts it; correct the file",
        where, scheme);
}
