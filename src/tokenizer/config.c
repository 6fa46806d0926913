/* What tokenizer_config.json (with special_tokens_map.json) says beside the vocabulary: more
 * tokens, and which of them go around a text. */
#include "core/alloc.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static const char where[] = "tokenizer_config.json";

/* Every configured token is compared with every other; real files have at most a few thousand. */
enum { MOST_TOKENS = 1 << 14 };

static bg_added_token *find(bg_added *added, const char *content, size_t size)
{
    for (size_t i = added->n; i-- > 0;)
        if (added->items[i].content_size == size &&
            memcmp(added->items[i].content, content, size) == 0)
            return &added->items[i];
    return NULL;
}

/* The id of a token: as it is known, or the next free one. */
static int32_t id_of(bg_tokenizer *t, const char *content, size_t size)
{
    const bg_added_token *known = find(&t->added, content, size);
    int32_t id = known ? known->id : bg_vocab_find(&t->vocab, content, size);
    if (id >= 0) return id;
    id = (int32_t)t->vocab.id_count;
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.items[i].id >= id) id = t->added.items[i].id + 1;
    return id;
}

/* Adds a token that is given as a string, which has no settings, or as an object. */
static bg_status add(bg_tokenizer *t, const json_t *value, bool special, bg_error *err)
{
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    bg_added_token token = {.special = special};
    if (!json_is_string(content) || !json_string_length(content)) return BG_OK;
    token.content = (char *)json_string_value(content);
    token.content_size = json_string_length(content);
    if (json_is_object(value)) {
        BG_TRY(bg_added_settings(value, where, &token, err));
        token.special |= special;
    } else {
        bg_added_token *known = find(&t->added, token.content, token.content_size);
        if (known) known->special |= special;
        if (known) return BG_OK;
    }
    token.id = id_of(t, token.content, token.content_size);
    if (token.id >= BG_MAX_TOKEN_ID || t->added.n >= MOST_TOKENS)
        return bg_fail(err, BG_ERR_FORMAT, "%s: more than %d added tokens; the file is damaged",
                       where, MOST_TOKENS);
    return bg_added_push(&t->added, &token, err);
}

static int by_id(const void *a, const void *b)
{
    long i = strtol(*(const char *const *)a, NULL, 10),
         j = strtol(*(const char *const *)b, NULL, 10);
    return (i > j) - (i < j);
}

/* {"32000": {"content": "<new>", ...}, ...}: in the order of the numbers, which otherwise count for
 * nothing: a token that the model lacks gets the next free id. */
static bg_status add_decoder(bg_tokenizer *t, const json_t *object, bg_error *err)
{
    size_t n = json_object_size(object), i = 0;
    const char **keys = n ? bg_alloc_array(n, sizeof *keys) : NULL, *key;
    json_t *value;
    if (!n) return BG_OK;
    if (!keys) return bg_fail_memory(err, n * sizeof *keys, "added tokens");
    json_object_foreach((json_t *)object, key, value)
    {
        keys[i++] = key;
    }
    qsort(keys, n, sizeof *keys, by_id);
    bg_status status = BG_OK;
    for (i = 0; status == BG_OK && i < n; i++)
        status = add(t, json_object_get(object, keys[i]), false, err);
    bg_free(keys);
    return status;
}

bg_status bg_added_config(bg_tokenizer *t, const json_t *config, const char *const *defaults,
                          bg_error *err)
{
    static const bg_special_token order[] = {
        BG_TOKEN_BOS, BG_TOKEN_EOS, BG_TOKEN_UNK,  BG_TOKEN_SEP,
        BG_TOKEN_PAD, BG_TOKEN_CLS, BG_TOKEN_MASK,
    };
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    BG_TRY(add_decoder(t, json_object_get(config, "added_tokens_decoder"), err));
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        const json_t *value = json_object_get(config, bg_special_key(order[i]));
        const char *usual = defaults[order[i]];
        if (value) {
            BG_TRY(add(t, value, true, err));
        } else if (usual && !find(&t->added, usual, strlen(usual))) {
            BG_TRY(bg_added_special(&t->added, &t->vocab, usual, err));
        } else if (usual) {
            find(&t->added, usual, strlen(usual))->special = true;
        }
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const json_t *list = json_object_get(config, lists[i]), *item;
        const char *key;
        size_t j;
        json_array_foreach(list, j, item)
        {
            BG_TRY(add(t, item, true, err));
        }
        json_object_foreach((json_t *)list, key, item)
        {
            BG_TRY(add(t, item, true, err));
        }
    }
    return BG_OK;
}

/* As in transformers 5, a class adds neither unless its configuration says so. */
bg_status bg_template_config(bg_tokenizer *t, const json_t *config, bg_error *err)
{
    bool bos = json_is_true(json_object_get(config, "add_bos_token"));
    bool eos = json_is_true(json_object_get(config, "add_eos_token"));
    return bg_template_bos_eos(t, bos ? t->special[BG_TOKEN_BOS] : -1,
                               eos ? t->special[BG_TOKEN_EOS] : -1, err);
}

/* Classes that put their own tokens around a text. */
static bool has_own_template(const json_t *config)
{
    static const char *const classes[] = {"T5",     "XLMRoberta", "Roberta",
                                          "Bert",   "DistilBert", "Electra",
                                          "Albert", "MPNet",      "Deberta"};
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    for (size_t i = 0; class && i < sizeof classes / sizeof *classes; i++)
        if (strncmp(class, classes[i], strlen(classes[i])) == 0) return true;
    return false;
}

bg_status bg_template_override(bg_tokenizer *t, const json_t *config, bg_error *err)
{
    bool given = json_is_boolean(json_object_get(config, "add_bos_token")) ||
                 json_is_boolean(json_object_get(config, "add_eos_token"));
    return given && !has_own_template(config) ? bg_template_config(t, config, err) : BG_OK;
}
