/* tokenizer.json: the whole tokenizer in one file. */
#include "core/alloc.h"
#include "tokenizer/internal.h"

#include <string.h>

/* Components are parsed by recursive functions; no real file comes near this. */
enum { DEEPEST = 64 };

static const bg_model_kind *const models[] = {&bg_bpe_kind, &bg_wordpiece_kind, &bg_wordlevel_kind,
                                              &bg_unigram_kind};

bg_status bg_vocab_parse(const json_t *object, const char *where, bg_vocab *vocab, bg_error *err)
{
    if (!json_is_object(object))
        return bg_fail(
            err, BG_ERR_FORMAT,
            "%s: the vocabulary must be an object of tokens and ids; the file is damaged", where);
    size_t bytes = 0;
    json_int_t max_id = -1;
    const char *token;
    json_t *id;
    json_object_foreach((json_t *)object, token, id)
    {
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= BG_MAX_TOKEN_ID)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: the id of token \"%.60s\" must be a whole number from 0 to %d; "
                           "correct the file",
                           where, token, BG_MAX_TOKEN_ID - 1);
        bytes += strlen(token);
        if (value > max_id) max_id = value;
    }
    BG_TRY(bg_vocab_reserve(vocab, json_object_size(object), bytes, (int32_t)max_id, err));
    json_object_foreach((json_t *)object, token, id)
    {
        int32_t value = (int32_t)json_integer_value(id);
        const bg_vocab_entry *other = bg_vocab_entry_of(vocab, value);
        if (other)
            return bg_fail(
                err, BG_ERR_FORMAT,
                "%s: the tokens \"%.60s\" and \"%.60s\" have the same id %d; correct the "
                "file",
                where, vocab->bytes + other->offset, token, (int)value);
        bg_vocab_add(vocab, token, strlen(token), value);
    }
    return BG_OK;
}

/* The type of a model in a file from before the key. */
static const char *guess_model(const json_t *object)
{
    if (json_object_get(object, "merges")) return "BPE";
    if (json_is_array(json_object_get(object, "vocab"))) return "Unigram";
    return json_object_get(object, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

static bg_status parse_model(const json_t *object, const char *where, bg_tokenizer *t,
                             bg_error *err)
{
    const char *type;
    if (!json_is_object(object))
        return bg_fail(err, BG_ERR_FORMAT, "%s: there is no \"model\"; the file is damaged", where);
    BG_TRY(bg_json_string(object, "type", where, NULL, &type, err));
    if (!type) type = guess_model(object);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (strcmp(type, models[i]->type) == 0) return models[i]->parse(object, where, t, err);
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "%s: the model type \"%s\" is not supported; bitgauge cannot use this tokenizer",
                   where, type);
}

static bool too_deep(const json_t *value, int depth)
{
    if (depth > DEEPEST) return true;
    const char *key;
    json_t *child;
    size_t i;
    json_object_foreach((json_t *)value, key, child)
    {
        if (too_deep(child, depth + 1)) return true;
    }
    json_array_foreach(value, i, child)
    {
        if (too_deep(child, depth + 1)) return true;
    }
    return false;
}

bg_status bg_steps_parse_all(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err)
{
    BG_TRY(bg_steps_parse(root, "normalizer", "normalizers", bg_normalizer_kinds, where,
                          &t->normalizers, err));
    BG_TRY(bg_steps_parse(root, "pre_tokenizer", "pretokenizers", bg_pretokenizer_kinds, where,
                          &t->pretokenizers, err));
    return bg_steps_parse(root, "decoder", "decoders", bg_decoder_kinds, where, &t->decoders, err);
}

bg_status bg_tokenizer_build(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err)
{
    if (!json_is_object(root))
        return bg_fail(err, BG_ERR_FORMAT, "%s: not a JSON object; this is no tokenizer.json",
                       where);
    if (too_deep(root, 0))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: nested more than %d levels deep; the file is damaged", where, DEEPEST);
    BG_TRY(parse_model(json_object_get(root, "model"), where, t, err));
    BG_TRY(bg_steps_parse_all(root, where, t, err));
    BG_TRY(bg_postprocessor_parse(root, where, t, err));
    BG_TRY(bg_layout_parse(root, where, t, err));
    BG_TRY(bg_added_parse(root, where, &t->vocab, &t->added, err));
    return bg_added_finish(&t->added, &t->normalizers, err);
}

bg_status bg_tokenizer_parse(const char *json, size_t size, const char *where, bg_tokenizer **out,
                             bg_error *err)
{
    json_t *root = NULL;
    *out = NULL;
    BG_TRY(bg_json_parse(json, size, where, &root, err));
    bg_tokenizer *t = bg_tokenizer_new();
    bg_status status =
        t ? bg_tokenizer_build(root, where, t, err) : bg_fail_memory(err, sizeof *t, "a tokenizer");
    json_decref(root);
    if (status != BG_OK) {
        bg_tokenizer_close(t);
        return status;
    }
    bg_special_find(t, NULL, NULL);
    *out = t;
    return BG_OK;
}
