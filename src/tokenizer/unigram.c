/* Unigram: of all ways to cut a text into tokens, the one whose tokens' log probabilities have the
 * largest sum, found with Viterbi's algorithm. Kudo, "Subword Regularization", 2018. Ties and
 * unknown characters are decided as Hugging Face `tokenizers` decides them. */
#include "core/alloc.h"
#include "tokenizer/internal.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* An unknown character scores this much less than the least likely token. */
static const double unknown_penalty = 10;

/* The best way to a place of the text. */
typedef struct {
    double score;
    uint32_t begin; /* of its last token; UNREACHED: no way yet */
    uint32_t end;   /* of the token that begins here, once the best way through is known */
    int32_t id;
} place;

#define UNREACHED UINT32_MAX

typedef struct {
    double *scores; /* (n) by id */
    bg_trie trie;
    int32_t bytes[256];
    double unknown_score;
    bool byte_fallback;
    place *places; /* (capacity) scratch of one word */
    size_t capacity;
} unigram;

/* ---- building -------------------------------------------------------------------------------- */

void bg_byte_tokens(const bg_vocab *vocab, int32_t ids[256])
{
    for (unsigned b = 0; b < 256; b++) {
        char code[8];
        snprintf(code, sizeof code, "<0x%02X>", b);
        ids[b] = bg_vocab_find(vocab, code, 6);
    }
}

bg_status bg_unigram_create(bg_tokenizer *t, double *scores, size_t n, int32_t unk_id,
                            bool byte_fallback, const char *where, bg_error *err)
{
    unigram *m = bg_calloc(1, sizeof *m);
    t->model = (bg_model *)m;
    t->kind = &bg_unigram_kind;
    if (!m) {
        bg_free(scores);
        return bg_fail_memory(err, sizeof *m, "a tokenizer");
    }
    m->scores = scores;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(scores[i]))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: the score of token %zu is not a number; the file is damaged", where,
                           i);
        if (scores[i] < least) least = scores[i];
    }
    if (unk_id >= 0 && (size_t)unk_id >= n)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the unknown token is number %d of a vocabulary of %zu; the file is "
                       "damaged",
                       where, (int)unk_id, n);
    m->unknown_score = least - unknown_penalty;
    m->byte_fallback = byte_fallback;
    t->unk_id = unk_id;
    bg_byte_tokens(&t->vocab, m->bytes);
    return bg_trie_build(&t->vocab, &m->trie, err);
}

static bg_status read_vocabulary(const json_t *list, const char *where, bg_vocab *vocab,
                                 double *scores, bg_error *err)
{
    size_t bytes = 0, n = json_array_size(list), i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *token = json_array_get(item, 0), *score = json_array_get(item, 1);
        if (!json_is_string(token) || !json_is_number(score))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: item %zu of the vocabulary is not [token, score]; the file is "
                           "damaged",
                           where, i);
        bytes += json_string_length(token);
        scores[i] = json_number_value(score);
    }
    BG_TRY(bg_vocab_reserve(vocab, n, bytes, (int32_t)n - 1, err));
    json_array_foreach(list, i, item)
    {
        const json_t *token = json_array_get(item, 0);
        bg_vocab_add(vocab, json_string_value(token), json_string_length(token), (int32_t)i);
    }
    return BG_OK;
}

static bg_status unigram_parse(const json_t *object, const char *where, bg_tokenizer *t,
                               bg_error *err)
{
    const json_t *list = json_object_get(object, "vocab");
    size_t n = json_array_size(list);
    int64_t unk_id;
    bool byte_fallback;
    if (!json_is_array(list) || n > BG_MAX_TOKEN_ID)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the vocabulary of a Unigram model must be an array of at most %d "
                       "[token, score]; the file is damaged",
                       where, BG_MAX_TOKEN_ID);
    BG_TRY(bg_json_int(object, "unk_id", where, 0, BG_MAX_TOKEN_ID, -1, false, &unk_id, err));
    BG_TRY(bg_json_bool(object, "byte_fallback", where, false, &byte_fallback, err));
    double *scores = bg_alloc_array(n, sizeof *scores);
    if (!scores) return bg_fail_memory(err, n * sizeof *scores, "a vocabulary");
    bg_status status = read_vocabulary(list, where, &t->vocab, scores, err);
    if (status != BG_OK) {
        bg_free(scores);
        return status;
    }
    return bg_unigram_create(t, scores, n, (int32_t)unk_id, byte_fallback, where, err);
}

static void unigram_free(bg_model *model)
{
    unigram *m = (unigram *)model;
    if (!m) return;
    bg_free(m->scores);
    bg_trie_free(&m->trie);
    bg_free(m->places);
    bg_free(m);
}

/* ---- one word -------------------------------------------------------------------------------- */

/* Takes the token from `begin` to `end` if that is a better way to `end`. */
static void consider(unigram *m, size_t begin, size_t end, double score, int32_t id)
{
    place *p = &m->places[end];
    score += m->places[begin].score;
    if (p->begin != UNREACHED && !(score > p->score)) return;
    *p = (place){.score = score, .begin = (uint32_t)begin, .id = id};
}

static bg_status find_best(const bg_tokenizer *t, unigram *m, const char *word, size_t size,
                           bg_error *err)
{
    for (size_t i = 0; i <= size; i++) m->places[i] = (place){.begin = UNREACHED};
    for (size_t i = 0, length; i < size; i += length) {
        bool single = false; /* is this character a token? */
        uint32_t node = 0;
        bg_utf8_next(word + i, &length);
        for (size_t end = i; end < size;) {
            node = bg_trie_next(&m->trie, node, (uint8_t)word[end++]);
            if (!node) break;
            int32_t id = m->trie.ids[node];
            if (id < 0) continue;
            consider(m, i, end, m->scores[id], id);
            single = single || end - i == length;
        }
        if (single) continue;
        if (t->unk_id < 0)
            return bg_fail(
                err, BG_ERR_FORMAT,
                "the tokenizer has no token for \"%.*s\", and no unknown token; its file "
                "is damaged",
                (int)length, word + i);
        consider(m, i, i + length, m->unknown_score, t->unk_id);
    }
    return BG_OK;
}

/* Adds what stands for a run of unknown characters: a token of just these bytes, the tokens of the
 * bytes, or the unknown token. */
static void add_unknown(const bg_tokenizer *t, const unigram *m, const char *run, size_t size,
                        bg_ids *ids)
{
    int32_t id = bg_vocab_find(&t->vocab, run, size);
    bool bytes = id < 0 && m->byte_fallback;
    for (size_t i = 0; bytes && i < size; i++) bytes = m->bytes[(uint8_t)run[i]] >= 0;
    if (!bytes) bg_ids_push(ids, id >= 0 ? id : t->unk_id);
    for (size_t i = 0; bytes && i < size; i++) bg_ids_push(ids, m->bytes[(uint8_t)run[i]]);
}

static bg_status unigram_encode(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                                bg_error *err)
{
    unigram *m = (unigram *)t->model;
    if (size >= UNREACHED)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "a text of %zu bytes is too long to tokenize; break it up", size);
    if (size >= m->capacity) {
        size_t capacity = size + size / 2 + 64;
        place *places = bg_realloc_array(m->places, capacity, sizeof *places);
        if (!places)
            return bg_fail_memory(err, capacity * sizeof *places, "a text being tokenized");
        m->places = places;
        m->capacity = capacity;
    }
    BG_TRY(find_best(t, m, word, size, err));
    for (size_t end = size; end > 0; end = m->places[end].begin)
        m->places[m->places[end].begin].end = (uint32_t)end;
    for (size_t i = 0; i < size;) {
        size_t begin = i;
        while (i < size && m->places[m->places[i].end].id == t->unk_id) i = m->places[i].end;
        if (i > begin) {
            add_unknown(t, m, word + begin, i - begin, ids);
        } else {
            i = m->places[i].end;
            bg_ids_push(ids, m->places[i].id);
        }
    }
    return BG_OK;
}

const bg_model_kind bg_unigram_kind = {
    .type = "Unigram", .parse = unigram_parse, .encode = unigram_encode, .free = unigram_free};
