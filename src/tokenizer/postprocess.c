/* Post-processors: what goes around a single text. All of them come down to ids before it and ids
 * after it. */
#include "core/alloc.h"
#include "tokenizer/internal.h"

#include <string.h>

typedef bg_status (*parse_fn)(const json_t *object, const char *where, bg_tokenizer *t,
                              bg_ids *before, bg_ids *after, bg_error *err);

static bool push_id(const json_t *id, bg_ids *to)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= BG_MAX_TOKEN_ID)
        return false;
    bg_ids_push(to, (int32_t)json_integer_value(id));
    return true;
}

/* The ids of a special token of a template. */
static bg_status push_special(const json_t *object, const json_t *piece, const char *where,
                              bg_ids *to, bg_error *err)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *ids = NULL, *id;
    size_t i;
    if (name)
        ids = json_object_get(json_object_get(json_object_get(object, "special_tokens"), name),
                              "ids");
    bool good = json_is_array(ids);
    json_array_foreach(ids, i, id)
    {
        good = good && push_id(id, to);
    }
    if (good) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the template's special token \"%.60s\" has no valid ids in "
                   "\"special_tokens\"; the file is damaged",
                   where, name ? name : "");
}

static bg_status parse_template(const json_t *object, const char *where, bg_tokenizer *t,
                                bg_ids *before, bg_ids *after, bg_error *err)
{
    (void)t;
    const json_t *single = json_object_get(object, "single"), *piece;
    size_t i;
    int sequences = 0;
    json_array_foreach(single, i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");
        const char *sequence =
            json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        if (special)
            BG_TRY(push_special(object, special, where, sequences ? after : before, err));
        else
            sequences += sequence && strcmp(sequence, "A") == 0 ? 1 : 2;
    }
    if (sequences == 1) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the template for a single text must hold the sequence A exactly once and "
                   "otherwise special tokens; correct the file",
                   where);
}

/* "cls": ["[CLS]", 101], "sep": ["[SEP]", 102] */
static bg_status parse_cls_sep(const json_t *object, const char *where, bg_tokenizer *t,
                               bg_ids *before, bg_ids *after, bg_error *err)
{
    (void)t;
    if (push_id(json_array_get(json_object_get(object, "cls"), 1), before) &&
        push_id(json_array_get(json_object_get(object, "sep"), 1), after))
        return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: the post-processor's \"cls\" and \"sep\" must be [token, id]; the file is "
                   "damaged",
                   where);
}

/* ByteLevel only moves offsets, which bitgauge has no use for. */
static bg_status parse_byte_level(const json_t *object, const char *where, bg_tokenizer *t,
                                  bg_ids *before, bg_ids *after, bg_error *err)
{
    (void)object, (void)where, (void)t, (void)before, (void)after, (void)err;
    return BG_OK;
}

static const struct {
    const char *type;
    parse_fn parse;
} kinds[] = {
    {"TemplateProcessing", parse_template},
    {"BertProcessing", parse_cls_sep},
    {"RobertaProcessing", parse_cls_sep},
    {"ByteLevel", parse_byte_level},
};

static bg_status parse(const json_t *value, const char *where, bg_tokenizer *t, bg_error *err)
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
            BG_TRY(parse(item, where, t, err));
        }
        return BG_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) != 0) continue;
        /* Only the first of several may add tokens: what a second one would put where depends on
         * how the first cut the text. */
        bool first = t->before.n + t->after.n == 0;
        bg_ids before = {0}, after = {0};
        bg_status status = kinds[i].parse(value, where, t, first ? &t->before : &before,
                                          first ? &t->after : &after, err);
        if (status == BG_OK && before.n + after.n)
            status =
                bg_fail(err, BG_ERR_UNSUPPORTED,
                        "%s: a sequence of post-processors that add tokens more than once is not "
                        "supported; bitgauge cannot use this tokenizer",
                        where);
        if (status == BG_OK) status = bg_ids_check(&t->before, err);
        if (status == BG_OK) status = bg_ids_check(&t->after, err);
        bg_free(before.data);
        bg_free(after.data);
        return status;
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
    return !value || json_is_null(value) ? BG_OK : parse(value, where, t, err);
}
