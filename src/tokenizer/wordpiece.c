/* WordPiece: the longest token that starts a word, then the longest continuing token, and so on; a
 * word that cannot be covered is unknown. Devlin et al., "BERT", 2019. */
#include "core/alloc.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <string.h>

typedef struct {
    char *unk_token, *prefix; /* prefix of a continuing token: "##" */
    size_t prefix_size, max_input_chars_per_word;
    char *buffer; /* room for the longest token */
} wordpiece;

bg_status bg_wordpiece_create(bg_tokenizer *t, const char *unk_token, const char *prefix,
                              size_t max_input_chars_per_word, const char *where, bg_error *err)
{
    (void)where;
    wordpiece *m = bg_calloc(1, sizeof *m);
    t->model = (bg_model *)m;
    t->kind = &bg_wordpiece_kind;
    if (!m || !(m->unk_token = bg_strdup(unk_token)) || !(m->prefix = bg_strdup(prefix)) ||
        !(m->buffer = bg_alloc(t->vocab.longest + strlen(prefix))))
        return bg_fail_memory(err, t->vocab.longest, "a tokenizer");
    m->prefix_size = strlen(prefix);
    m->max_input_chars_per_word = max_input_chars_per_word;
    t->unk_id = bg_vocab_find(&t->vocab, unk_token, strlen(unk_token));
    return BG_OK;
}

static bg_status wordpiece_parse(const json_t *object, const char *where, bg_tokenizer *t,
                                 bg_error *err)
{
    const char *unk_token, *prefix;
    int64_t max_chars;
    BG_TRY(bg_json_string(object, "unk_token", where, "[UNK]", &unk_token, err));
    BG_TRY(bg_json_string(object, "continuing_subword_prefix", where, "##", &prefix, err));
    BG_TRY(bg_json_int(object, "max_input_chars_per_word", where, 0, INT32_MAX, 100, false,
                       &max_chars, err));
    BG_TRY(bg_vocab_parse(json_object_get(object, "vocab"), where, &t->vocab, err));
    return bg_wordpiece_create(t, unk_token, prefix, (size_t)max_chars, where, err);
}

static void wordpiece_free(bg_model *model)
{
    wordpiece *m = (wordpiece *)model;
    if (!m) return;
    bg_free(m->unk_token);
    bg_free(m->prefix);
    bg_free(m->buffer);
    bg_free(m);
}

/* The longest token that starts `rest` (of a word, after its beginning if `continuing`): its id,
 * and in *size how many bytes of the word it covers; -1 where there is none. */
static int32_t longest(const bg_tokenizer *t, const wordpiece *m, bool continuing, const char *rest,
                       size_t *size)
{
    size_t prefix = continuing ? m->prefix_size : 0;
    if (t->vocab.longest < prefix) return -1;
    size_t n = *size;
    if (n > t->vocab.longest - prefix) n = t->vocab.longest - prefix;
    memcpy(m->buffer, m->prefix, prefix);
    memcpy(m->buffer + prefix, rest, n);
    for (; n > 0; n--) {
        if (n < *size && ((uint8_t)rest[n] & 0xC0) == 0x80) continue; /* inside a character */
        int32_t id = bg_vocab_find(&t->vocab, m->buffer, prefix + n);
        if (id < 0) continue;
        *size = n;
        return id;
    }
    return -1;
}

static bg_status wordpiece_encode(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                                  bg_error *err)
{
    const wordpiece *m = (const wordpiece *)t->model;
    size_t first = ids->n, done = 0;
    if (bg_utf8_count(word, size) <= m->max_input_chars_per_word) {
        while (done < size) {
            size_t n = size - done;
            int32_t id = longest(t, m, done > 0, word + done, &n);
            if (id < 0) break;
            bg_ids_push(ids, id);
            done += n;
        }
    }
    if (done == size && size) return BG_OK;
    ids->n = first;
    int32_t unk = bg_vocab_find(&t->vocab, m->unk_token, strlen(m->unk_token));
    if (unk < 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "the tokenizer's unknown token \"%.60s\" is not in its vocabulary; correct "
                       "its file",
                       m->unk_token);
    bg_ids_push(ids, unk);
    return BG_OK;
}

const bg_model_kind bg_wordpiece_kind = {.type = "WordPiece",
                                         .parse = wordpiece_parse,
                                         .encode = wordpiece_encode,
                                         .free = wordpiece_free};
