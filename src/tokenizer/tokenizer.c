/* Opening a tokenizer, and the way from ids back to text. */
#include "core/alloc.h"
#include "core/checked.h"
#include "core/file.h"
#include "hub/hub.h"
#include "tokenizer/internal.h"

#include <string.h>

/* Gemma's tokenizer.json, among the largest, has 34 MB. */
enum { LARGEST_FILE = 256 * 1024 * 1024, LARGEST_CONFIG = 16 * 1024 * 1024 };

/* ---- opening --------------------------------------------------------------------------------- */

bg_tokenizer *bg_tokenizer_new(void)
{
    bg_tokenizer *t = bg_calloc(1, sizeof *t);
    for (int i = 0; t && i < BG_TOKEN_COUNT; i++) t->special[i] = -1;
    if (t) t->unk_id = -1;
    return t;
}

BG_API void bg_tokenizer_close(bg_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    if (tokenizer->kind) tokenizer->kind->free(tokenizer->model);
    bg_vocab_free(&tokenizer->vocab);
    bg_added_free(&tokenizer->added);
    bg_steps_free(&tokenizer->normalizers);
    bg_steps_free(&tokenizer->pretokenizers);
    bg_steps_free(&tokenizer->decoders);
    bg_free(tokenizer->single.items);
    bg_free(tokenizer->pair.items);
    bg_free(tokenizer);
}

/* The files of a directory that say how to tokenize. */
enum {
    TOKENIZER_JSON,
    VOCAB_JSON,
    MERGES_TXT,
    VOCAB_TXT,
    TOKENIZER_MODEL,
    SPIECE_MODEL,
    BPE_MODEL,
    SPM_MODEL,
    CONFIG,
    SPECIALS_MAP,
    FILE_COUNT
};

static const char *const names[FILE_COUNT] = {"tokenizer.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "vocab.txt",
                                              "tokenizer.model",
                                              "spiece.model",
                                              "sentencepiece.bpe.model",
                                              "spm.model",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json"};

typedef struct {
    char *path[FILE_COUNT]; /* NULL: not there */
    json_t *config;         /* tokenizer_config.json and special_tokens_map.json in one; or NULL */
} sources;

static bg_status find_files(const char *directory, sources *s, bg_error *err)
{
    if (!bg_is_directory(directory))
        return bg_fail(err, BG_ERR_FILE, "%s: not a directory; name a model's directory",
                       directory);
    for (int i = 0; i < FILE_COUNT; i++) {
        s->path[i] = bg_path_join(directory, names[i]);
        if (!s->path[i]) return bg_fail_memory(err, strlen(directory), "a file name");
        if (bg_file_exists(s->path[i])) continue;
        bg_free(s->path[i]);
        s->path[i] = NULL;
    }
    for (int i = CONFIG; i <= SPECIALS_MAP; i++) {
        json_t *loaded = NULL;
        if (!s->path[i]) continue;
        BG_TRY(bg_json_load(s->path[i], LARGEST_CONFIG, &loaded, err));
        int failed = 0;
        if (!json_is_object(loaded)) {
            json_decref(loaded);
            return bg_fail(err, BG_ERR_FORMAT, "%s: not a JSON object; the file is damaged",
                           s->path[i]);
        }
        if (!s->config)
            s->config = json_incref(loaded);
        else
            failed = json_object_update_missing(s->config, loaded);
        json_decref(loaded);
        if (failed) return bg_fail_memory(err, 0, "the tokenizer's configuration");
    }
    return BG_OK;
}

static bg_status read_sentencepiece(const char *path, const json_t *config, bg_tokenizer *t,
                                    bg_error *err)
{
    bg_mapping map;
    BG_TRY(bg_map_file(path, &map, err));
    bg_status status =
        map.size > LARGEST_FILE
            ? bg_fail(err, BG_ERR_FORMAT, "%s: %zu bytes are too many for a SentencePiece model",
                      path, map.size)
            : bg_tokenizer_read_sentencepiece(map.data, map.size, config, path, t, err);
    bg_unmap(&map);
    return status;
}

static bg_status build(const char *directory, const sources *s, bg_tokenizer *t, bg_error *err)
{
    if (s->path[TOKENIZER_JSON]) {
        json_t *root = NULL;
        BG_TRY(bg_json_load(s->path[TOKENIZER_JSON], LARGEST_FILE, &root, err));
        bg_status status = bg_tokenizer_build(root, s->path[TOKENIZER_JSON], t, err);
        json_decref(root);
        BG_TRY(status);
        bg_special_find(t, s->config, NULL);
        return bg_template_override(t, s->config, err);
    }
    if (s->path[VOCAB_JSON] && s->path[MERGES_TXT])
        return bg_tokenizer_read_gpt2(s->path[VOCAB_JSON], s->path[MERGES_TXT], s->config, t, err);
    if (s->path[VOCAB_TXT]) return bg_tokenizer_read_bert(s->path[VOCAB_TXT], s->config, t, err);
    for (int i = TOKENIZER_MODEL; i <= SPM_MODEL; i++)
        if (s->path[i]) return read_sentencepiece(s->path[i], s->config, t, err);
    return bg_fail(err, BG_ERR_FILE,
                   "%s: no tokenizer.json, no vocab.json with merges.txt, no vocab.txt, no "
                   "tokenizer.model or spiece.model; copy the model's tokenizer there",
                   directory);
}

static bg_status open_directory(const char *directory, bg_tokenizer **out, bg_error *err)
{
    sources s = {0};
    bg_tokenizer *t = bg_tokenizer_new();
    bg_status status =
        t ? find_files(directory, &s, err) : bg_fail_memory(err, sizeof *t, "a tokenizer");
    if (status == BG_OK) status = build(directory, &s, t, err);
    if (status == BG_OK) {
        const char *side = json_string_value(json_object_get(s.config, "truncation_side"));
        t->truncate_left = side && strcmp(side, "left") == 0;
        *out = t;
    } else {
        bg_tokenizer_close(t);
    }
    json_decref(s.config);
    for (int i = 0; i < FILE_COUNT; i++) bg_free(s.path[i]);
    return status;
}

BG_API bg_status bg_tokenizer_open(const char *model, bg_tokenizer **out, bg_error *err)
{
    char *directory;
    *out = NULL;
    BG_TRY(bg_hub_resolve_model(model, true, (bg_progress){0}, &directory, err));
    bg_status status = open_directory(directory, out, err);
    bg_free(directory);
    return status;
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* The text that a decoder sees for an id: a token that was looked for in normalized text has its
 * normalized spelling. NULL where the vocabulary has no such id. */
static const char *spelling(const bg_tokenizer *t, int32_t id, size_t *size)
{
    const bg_vocab *vocab = &t->added.vocab;
    const bg_vocab_entry *e = bg_vocab_entry_of(vocab, id);
    for (size_t i = 0; e && i < t->added.normalized.n; i++) {
        const bg_added_token *token = &t->added.items[t->added.normalized.order[i]];
        if (token->id != id || !token->normalized) continue;
        *size = token->normalized_size;
        return token->normalized;
    }
    if (!e) e = bg_vocab_entry_of(vocab = &t->vocab, id);
    if (!e) return NULL;
    *size = e->size;
    return vocab->bytes + e->offset;
}

static bg_status decode(const bg_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                        bg_pieces *pieces, bg_pieces *spare, bg_error *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t size;
        const char *token = spelling(t, ids[i], &size);
        if (!token) continue; /* a model may have more outputs than there are tokens */
        if (skip_special && bg_vocab_find(&t->added.specials, token, size) >= 0) continue;
        if (!t->decoders.n && pieces->n) bg_text_append(&pieces->text, " ", 1);
        bg_text_append(&pieces->text, token, size);
        bg_pieces_push(pieces, -1);
    }
    BG_TRY(bg_pieces_check(pieces, err));
    for (size_t s = 0; s < t->decoders.n; s++) {
        const bg_step *step = &t->decoders.items[s];
        bg_pieces_clear(spare);
        BG_TRY(step->kind->decode(step, pieces, spare, err));
        bg_pieces done = *spare;
        *spare = *pieces;
        *pieces = done;
        BG_TRY(bg_pieces_check(pieces, err));
    }
    return BG_OK;
}

BG_API bg_status bg_tokenizer_decode(const bg_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                     bool skip_special, char **text, size_t *size, bg_error *err)
{
    bg_pieces pieces = {0}, spare = {0};
    *text = NULL;
    bg_status status = decode(tokenizer, ids, n, skip_special, &pieces, &spare, err);
    if (status == BG_OK) {
        *text = bg_strndup(pieces.text.data ? pieces.text.data : "", pieces.text.size);
        if (!*text) status = bg_fail_memory(err, pieces.text.size, "a decoded text");
        if (size) *size = pieces.text.size;
    }
    bg_pieces_free(&pieces);
    bg_pieces_free(&spare);
    return status;
}

/* ---- looking up ------------------------------------------------------------------------------ */

BG_API size_t bg_tokenizer_vocab_size(const bg_tokenizer *tokenizer)
{
    return bg_max_size(tokenizer->vocab.id_count, tokenizer->added.vocab.id_count);
}

BG_API const char *bg_tokenizer_token(const bg_tokenizer *tokenizer, int32_t id)
{
    const bg_vocab *vocab = &tokenizer->added.vocab;
    const bg_vocab_entry *e = bg_vocab_entry_of(vocab, id);
    if (!e) e = bg_vocab_entry_of(vocab = &tokenizer->vocab, id);
    return e ? vocab->bytes + e->offset : NULL;
}

BG_API int32_t bg_tokenizer_id(const bg_tokenizer *tokenizer, const char *token)
{
    int32_t id = bg_vocab_find(&tokenizer->added.vocab, token, strlen(token));
    return id >= 0 ? id : bg_vocab_find(&tokenizer->vocab, token, strlen(token));
}
