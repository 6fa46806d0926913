/* WordLevel: a word is a token, or unknown. */
#include "tokenizer/internal.h"

#include <string.h>

static bg_status wordlevel_parse(const json_t *object, const char *where, bg_tokenizer *t,
                                 bg_error *err)
{
    const char *unk_token;
    BG_TRY(bg_json_string(object, "unk_token", where, "<unk>", &unk_token, err));
    BG_TRY(bg_vocab_parse(json_object_get(object, "vocab"), where, &t->vocab, err));
    t->kind = &bg_wordlevel_kind;
    t->unk_id = bg_vocab_find(&t->vocab, unk_token, strlen(unk_token));
    return BG_OK;
}

static bg_status wordlevel_encode(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                                  bg_error *err)
{
    int32_t id = bg_vocab_find(&t->vocab, word, size);
    if (id < 0) id = t->unk_id;
    if (id < 0)
        return bg_fail(
            err, BG_ERR_FORMAT,
            "the tokenizer has no token for \"%.*s\", and its unknown token is not in its "
            "vocabulary; correct its file",
            (int)(size < 60 ? size : 60), word);
    bg_ids_push(ids, id);
    return BG_OK;
}

static void wordlevel_free(bg_model *model)
{
    (void)model; /* the vocabulary is all there is */
}

const bg_model_kind bg_wordlevel_kind = {.type = "WordLevel",
                                         .parse = wordlevel_parse,
                                         .encode = wordlevel_encode,
                                         .free = wordlevel_free};
