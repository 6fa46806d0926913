/* Post-processors: which tokens go around a text, or around and between two. All of them come down
 * to two templates. */
#include "core/alloc.h"
#include "tokenizer/internal.h"

#include <string.h>

bg_status bg_template_push(bg_template *template, int32_t id, int32_t type_id, bg_error *err)
{
    if (template->n == template->capacity) {
        size_t capacity = template->capacity ? template->capacity * 2 : 8;
        bg_template_piece *items = bg_realloc_array(template->items, capacity, sizeof *items);
        if (!items) return bg_fail_memory(err, capacity * sizeof *items, "a template");
        template->items = items;
        template->capacity = capacity;
    }
    template->items[template->n++] = (bg_template_piece){.id = id, .type_id = type_id};
    return BG_OK;
}

size_t bg_template_added(const bg_template *template)
{
    size_t added = 0;
    for (size_t i = 0; i < template->n; i++) added += template->items[i].id >= 0;
    return added;
}

/* ---- fixed forms ----------------------------------------------------------------------------- */

/* An id that is left out. */
enum { NONE = INT32_MIN };

static bg_status set(bg_template *template, const bg_template_piece *pieces, size_t n,
                     bg_error *err)
{
    template->n = 0;
    for (size_t i = 0; i < n; i++)
        if (pieces[i].id != NONE)
            BG_TRY(bg_template_push(template, pieces[i].id, pieces[i].type_id, err));
    return BG_OK;
}

#define SET(template, err, ...)                                                                    \
    set(template, (const bg_template_piece[]){__VA_ARGS__},                                        \
        sizeof((const bg_template_piece[]){__VA_ARGS__}) / sizeof(bg_template_piece), err)

bg_status bg_template_defaults(bg_tokenizer *t, bg_error *err)
{
    BG_TRY(SET(&t->single, err, {BG_TEMPLATE_A, 0}));
    return SET(&t->pair, err, {BG_TEMPLATE_A, 0}, {BG_TEMPLATE_B, 1});
}

bg_status bg_template_bos_eos(bg_tokenizer *t, int32_t bos, int32_t eos, bg_error *err)
{
    if (bos < 0) bos = NONE;
    if (eos < 0) eos = NONE;
    BG_TRY(SET(&t->single, err, {bos, 0}, {BG_TEMPLATE_A, 0}, {eos, 0}));
    return SET(&t->pair, err, {bos, 0}, {BG_TEMPLATE_A, 0}, {eos, 0}, {bos, 1}, {BG_TEMPLATE_B, 1},
               {eos, 1});
}

/* ---- tokenizer.json -------------------------------------------------------------------------- */

typedef bg_status (*parse_fn)(const json_t *object, const char *where, bg_tokenizer *t,
                              bg_error *err);

static bool read_id(const json_t *value, int32_t *id)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= BG_MAX_TOKEN_ID)
        return false;
    *id = (int32_t)json_integer_value(value);
    return true;
}

/* The ids of a special token of a template. */
static bg_status push_special(const json_t *object, const json_t *piece, int32_t type_id,
                              const char *where, bg_template *to, bg_error *err)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *ids = NULL, *item;
    size_t i;
    int32_t id;
    if (name)
        ids = json_object_get(json_object_get(json_object_get(object, "special_tokens"), name),
                              "ids");
    bool good = json_is_array(ids);
    json_array_foreach(ids, i, item)
    {
        good = good && read_id(item, &id);
        if (good) BG_TRY(bg_template_push(to, id, type_id, err));
    }
    if (good) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the template's special token \"%.60s\" has no valid ids in "
                   "\"special_tokens\"; the file is damaged",
                   where, name ? name : "");
}

/* [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, ...]
 */
static bg_status read_template(const json_t *object, const char *key, bool pair, const char *where,
                               bg_template *to, bg_error *err)
{
    const json_t *list = json_object_get(object, key), *piece;
    size_t i, texts = 0;
    to->n = 0;
    json_array_foreach(list, i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        const char *name = json_string_value(json_object_get(sequence, "id"));
        int64_t type_id;
        BG_TRY(bg_json_int(special ? special : sequence, "type_id", where, 0, INT32_MAX, 0, false,
                           &type_id, err));
        if (special) {
            BG_TRY(push_special(object, special, (int32_t)type_id, where, to, err));
            continue;
        }
        bool second = name && strcmp(name, "B") == 0;
        if (!name || (!second && strcmp(name, "A") != 0) || (second && !pair))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: piece %zu of the template \"%s\" is neither a special token nor a "
                           "text that is there; correct the file",
                           where, i, key);
        BG_TRY(bg_template_push(to, second ? BG_TEMPLATE_B : BG_TEMPLATE_A, (int32_t)type_id, err));
        texts++;
    }
    if (texts) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the template \"%s\" has no place for a text; correct "
                   "the file",
                   where, key);
}

static bg_status parse_template(const json_t *object, const char *where, bg_tokenizer *t,
                                bg_error *err)
{
    BG_TRY(read_template(object, "single", false, where, &t->single, err));
    if (!json_object_get(object, "pair")) return BG_OK; /* the one text and then the other */
    return read_template(object, "pair", true, where, &t->pair, err);
}

/* "cls": ["[CLS]", 101], "sep": ["[SEP]", 102] */
static bg_status read_cls_sep(const json_t *object, const char *where, int32_t *cls, int32_t *sep,
                              bg_error *err)
{
    if (read_id(json_array_get(json_object_get(object, "cls"), 1), cls) &&
        read_id(json_array_get(json_object_get(object, "sep"), 1), sep))
        return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the post-processor's \"cls\" and \"sep\" must be [token, id]; the file is "
                   "damaged",
                   where);
}

bg_status bg_template_bert(bg_tokenizer *t, int32_t cls, int32_t sep, bg_error *err)
{
    BG_TRY(SET(&t->single, err, {cls, 0}, {BG_TEMPLATE_A, 0}, {sep, 0}));
    return SET(&t->pair, err, {cls, 0}, {BG_TEMPLATE_A, 0}, {sep, 0}, {BG_TEMPLATE_B, 1}, {sep, 1});
}

bg_status bg_template_roberta(bg_tokenizer *t, int32_t cls, int32_t sep, bg_error *err)
{
    BG_TRY(SET(&t->single, err, {cls, 0}, {BG_TEMPLATE_A, 0}, {sep, 0}));
    return SET(&t->pair, err, {cls, 0}, {BG_TEMPLATE_A, 0}, {sep, 0}, {sep, 0}, {BG_TEMPLATE_B, 0},
               {sep, 0});
}

bg_status bg_template_t5(bg_tokenizer *t, int32_t eos, bg_error *err)
{
    if (eos < 0) eos = NONE;
    BG_TRY(SET(&t->single, err, {BG_TEMPLATE_A, 0}, {eos, 0}));
    return SET(&t->pair, err, {BG_TEMPLATE_A, 0}, {eos, 0}, {BG_TEMPLATE_B, 0}, {eos, 0});
}

static bg_status parse_bert(const json_t *object, const char *where, bg_tokenizer *t, bg_error *err)
{
    int32_t cls = 0, sep = 0;
    BG_TRY(read_cls_sep(object, where, &cls, &sep, err));
    return bg_template_bert(t, cls, sep, err);
}

static bg_status parse_roberta(const json_t *object, const char *where, bg_tokenizer *t,
                               bg_error *err)
{
    int32_t cls = 0, sep = 0;
    BG_TRY(read_cls_sep(object, where, &cls, &sep, err));
    return bg_template_roberta(t, cls, sep, err);
}

static const struct {
    const char *type;
    parse_fn parse; /* NULL: only moves offsets, which bitgauge has no use for */
} kinds[] = {
    {"TemplateProcessing", parse_template},
    {"BertProcessing", parse_bert},
    {"RobertaProcessing", parse_roberta},
    {"ByteLevel", NULL},
};

/* `done` says whether a processor has already filled the templates. */
static bg_status parse(const json_t *value, const char *where, bg_tokenizer *t, bool *done,
                       bg_error *err)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"post_processor\" must be an object with a \"type\"; the file is "
                       "damaged",
                       where);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *items = json_object_get(value, "processors"), *item;
        size_t i;
        json_array_foreach(items, i, item)
        {
            BG_TRY(parse(item, where, t, done, err));
        }
        return BG_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) != 0) continue;
        if (!kinds[i].parse) return BG_OK;
        /* What a second one would put where depends on how the first cut the text. */
        if (*done)
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: a sequence of post-processors that add tokens more than once is "
                           "not supported; bitgauge cannot use this tokenizer",
                           where);
        *done = true;
        return kinds[i].parse(value, where, t, err);
    }
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "%s: the post_processor type \"%s\" is not supported; bitgauge cannot use this "
                   "tokenizer",
                   where, type);
}

bg_status bg_postprocessor_parse(const json_t *root, const char *where, bg_tokenizer *t,
                                 bg_error *err)
{
    const json_t *value = json_object_get(root, "post_processor");
    bool done = false;
    BG_TRY(bg_template_defaults(t, err));
    return !value || json_is_null(value) ? BG_OK : parse(value, where, t, &done, err);
}
