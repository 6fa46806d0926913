/* Byte-pair encoding: a word's characters, merged pair by pair in the order of the merges' ranks.
 * Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016. */
#include "core/alloc.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <string.h>

/* Two neighbouring ids, and what they merge into. */
typedef struct {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank; /* NO_RANK: the slot is free */
    int32_t id;
} merge;

#define NO_RANK UINT32_MAX

/* A word as a linked list of symbols. */
typedef struct {
    int32_t id;
    int32_t previous, next; /* -1: none */
    bool gone;              /* merged into the one before */
} symbol;

/* A merge that may be done. */
typedef struct {
    uint32_t rank, position;
    int32_t id;
} candidate;

/* Short words and their ids. A slot holds the last word that hashed there. */
enum { CACHE_SLOTS = 1 << 14, CACHED_BYTES = 40, CACHED_IDS = 8 };

typedef struct {
    uint8_t size, n; /* size 0: free */
    char word[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
} cached;

typedef struct {
    merge *merges; /* (slots), open addressing */
    size_t slots, count, reserved;
    uint32_t rank; /* of the next merge */
    /* The pairs of characters that some merge joins: (slots), open addressing, 0 free. A long word
     * is cut between any other two, where no merge can reach across. */
    uint64_t *joints;
    bool can_cut;
    char *unk_token, *prefix, *suffix; /* may be NULL */
    size_t prefix_size, suffix_size;
    bool fuse_unk, byte_fallback, ignore_merges;
    cached *cache; /* (CACHE_SLOTS) */
    /* scratch of one word */
    symbol *symbols;
    candidate *heap;
    size_t n, capacity, heap_n;
    bg_text spelling;
} bpe;

/* ---- merges ---------------------------------------------------------------------------------- */

static merge *slot_of(const bpe *m, uint64_t pair)
{
    uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(hash >> 32 ^ hash) & (m->slots - 1);
    while (m->merges[slot].rank != NO_RANK && m->merges[slot].pair != pair)
        slot = (slot + 1) & (m->slots - 1);
    return &m->merges[slot];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot of two neighbouring characters. */
static uint64_t *joint_of(const bpe *m, uint32_t a, uint32_t b)
{
    uint64_t key = ((uint64_t)a << 21 | b) + 1, hash = key * 0x9E3779B97F4A7C15u;
    size_t slot = (size_t)(hash >> 32 ^ hash) & (m->slots - 1);
    while (m->joints[slot] && m->joints[slot] != key) slot = (slot + 1) & (m->slots - 1);
    return &m->joints[slot];
}

static bool is_byte_token(const char *token, size_t size)
{
    return size == 6 && memcmp(token, "<0x", 3) == 0 && token[5] == '>';
}

/* Notes which characters a merge joins. Tokens that stand for other characters than they are
 * spelled with cannot be cut by their spelling. */
static void note_joint(bpe *m, const char *left, size_t left_size, const char *right,
                       size_t right_size)
{
    size_t n, unk = m->unk_token ? strlen(m->unk_token) : 0;
    bool spelled = left_size && right_size && !is_byte_token(left, left_size) &&
                   !is_byte_token(right, right_size) && !m->prefix && !m->suffix &&
                   !(unk && left_size == unk && !memcmp(left, m->unk_token, unk)) &&
                   !(unk && right_size == unk && !memcmp(right, m->unk_token, unk));
    if (!spelled) {
        m->can_cut = false;
        return;
    }
    uint32_t a = bg_utf8_last(left, left_size, &n), b = bg_utf8_next(right, &n);
    *joint_of(m, a, b) = ((uint64_t)a << 21 | b) + 1;
}

bg_status bg_bpe_merge(bg_tokenizer *t, const char *left, size_t left_size, const char *right,
                       size_t right_size, const char *where, bg_error *err)
{
    bpe *m = (bpe *)t->model;
    int32_t a = bg_vocab_find(&t->vocab, left, left_size);
    int32_t b = bg_vocab_find(&t->vocab, right, right_size);
    int32_t id = -1;
    if (b >= 0 && right_size >= m->prefix_size) {
        m->spelling.size = 0;
        bg_text_append(&m->spelling, left, left_size);
        bg_text_append(&m->spelling, right + m->prefix_size, right_size - m->prefix_size);
        if (m->spelling.failed) return bg_fail_memory(err, left_size + right_size, "a merge");
        id = bg_vocab_find(&t->vocab, m->spelling.data, m->spelling.size);
    }
    if (a < 0 || id < 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: merge %u (\"%.40s\" and \"%.40s\") names a token that is not in the "
                       "vocabulary; the file is damaged, or belongs to another model",
                       where, m->rank, left, right);
    if (m->count == m->reserved)
        return bg_fail(err, BG_ERR_INTERNAL, "%s: more merges than announced", where);
    if (m->can_cut) note_joint(m, left, left_size, right, right_size);
    merge *slot = slot_of(m, pair_of(a, b));
    m->count += slot->rank == NO_RANK;
    *slot = (merge){.pair = pair_of(a, b), .rank = m->rank++, .id = id};
    return BG_OK;
}

bg_status bg_bpe_merge_line(bg_tokenizer *t, const char *line, size_t size, const char *where,
                            bg_error *err)
{
    if (size >= 8 && memcmp(line, "#version", 8) == 0) return BG_OK;
    const char *space = memchr(line, ' ', size);
    size_t left = space ? (size_t)(space - line) : size;
    if (!space || memchr(space + 1, ' ', size - left - 1))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: merge %u is \"%.*s\", not two tokens with a space between; the file is "
                       "damaged",
                       where, ((bpe *)t->model)->rank, (int)(size < 80 ? size : 80), line);
    char *pair = bg_strndup(line, size); /* two strings, for the messages */
    if (!pair) return bg_fail_memory(err, size, "a merge");
    pair[left] = '\0';
    bg_status status = bg_bpe_merge(t, pair, left, pair + left + 1, size - left - 1, where, err);
    bg_free(pair);
    return status;
}

/* ---- building -------------------------------------------------------------------------------- */

static bool copy(const char *text, char **out)
{
    *out = text && *text ? bg_strdup(text) : NULL;
    return *out || !text || !*text;
}

bg_status bg_bpe_create(bg_tokenizer *t, const bg_bpe_settings *settings, size_t merges,
                        const char *where, bg_error *err)
{
    size_t slots = 16;
    while (slots < merges * 2) slots *= 2;
    if (merges >= NO_RANK / 4)
        return bg_fail(err, BG_ERR_FORMAT, "%s: too many merges; the file is damaged", where);
    bpe *m = bg_calloc(1, sizeof *m);
    t->model = (bg_model *)m;
    t->kind = &bg_bpe_kind;
    if (!m || !(m->merges = bg_alloc_array(slots, sizeof *m->merges)) ||
        !(m->cache = bg_calloc(CACHE_SLOTS, sizeof *m->cache)) ||
        !(m->joints = bg_calloc(slots, sizeof *m->joints)) ||
        !copy(settings->unk_token, &m->unk_token) ||
        !copy(settings->continuing_subword_prefix, &m->prefix) ||
        !copy(settings->end_of_word_suffix, &m->suffix))
        return bg_fail_memory(err, slots * sizeof *m->merges, "a tokenizer's merges");
    for (size_t i = 0; i < slots; i++) m->merges[i].rank = NO_RANK;
    m->slots = slots;
    m->reserved = merges;
    m->prefix_size = m->prefix ? strlen(m->prefix) : 0;
    m->suffix_size = m->suffix ? strlen(m->suffix) : 0;
    m->fuse_unk = settings->fuse_unk;
    m->byte_fallback = settings->byte_fallback;
    m->ignore_merges = settings->ignore_merges;
    m->can_cut = !m->ignore_merges && !m->prefix && !m->suffix;
    if (m->unk_token) t->unk_id = bg_vocab_find(&t->vocab, m->unk_token, strlen(m->unk_token));
    return BG_OK;
}

static bg_status parse_merges(const json_t *merges, const char *where, bg_tokenizer *t,
                              bg_error *err)
{
    const json_t *item;
    size_t i;
    json_array_foreach(merges, i, item)
    {
        const json_t *a = json_array_get(item, 0), *b = json_array_get(item, 1);
        if (json_is_string(item)) {
            BG_TRY(bg_bpe_merge_line(t, json_string_value(item), json_string_length(item), where,
                                     err));
        } else if (json_array_size(item) == 2 && json_is_string(a) && json_is_string(b)) {
            BG_TRY(bg_bpe_merge(t, json_string_value(a), json_string_length(a),
                                json_string_value(b), json_string_length(b), where, err));
        } else {
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: merge %zu is neither a string nor a pair of strings; the file is "
                           "damaged",
                           where, i);
        }
    }
    return BG_OK;
}

static bg_status bpe_parse(const json_t *object, const char *where, bg_tokenizer *t, bg_error *err)
{
    bg_bpe_settings settings = {0};
    BG_TRY(bg_json_string(object, "unk_token", where, NULL, &settings.unk_token, err));
    BG_TRY(bg_json_string(object, "continuing_subword_prefix", where, NULL,
                          &settings.continuing_subword_prefix, err));
    BG_TRY(bg_json_string(object, "end_of_word_suffix", where, NULL, &settings.end_of_word_suffix,
                          err));
    BG_TRY(bg_json_bool(object, "fuse_unk", where, false, &settings.fuse_unk, err));
    BG_TRY(bg_json_bool(object, "byte_fallback", where, false, &settings.byte_fallback, err));
    BG_TRY(bg_json_bool(object, "ignore_merges", where, false, &settings.ignore_merges, err));
    /* "dropout" leaves merges out at random, in training. */
    const json_t *merges = json_object_get(object, "merges");
    if (!json_is_array(merges))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the BPE model has no array \"merges\"; the file is damaged", where);
    BG_TRY(bg_vocab_parse(json_object_get(object, "vocab"), where, &t->vocab, err));
    BG_TRY(bg_bpe_create(t, &settings, json_array_size(merges), where, err));
    return parse_merges(merges, where, t, err);
}

static void bpe_free(bg_model *model)
{
    bpe *m = (bpe *)model;
    if (!m) return;
    bg_free(m->merges);
    bg_free(m->joints);
    bg_free(m->unk_token);
    bg_free(m->prefix);
    bg_free(m->suffix);
    bg_free(m->cache);
    bg_free(m->symbols);
    bg_free(m->heap);
    bg_text_free(&m->spelling);
    bg_free(m);
}

/* ---- one word -------------------------------------------------------------------------------- */

static bool less(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(bpe *m, candidate c)
{
    size_t i = m->heap_n++;
    for (; i > 0 && less(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
}

static candidate heap_pop(bpe *m)
{
    candidate top = m->heap[0], last = m->heap[--m->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->heap_n; i = child) {
        if (child + 1 < m->heap_n && less(&m->heap[child + 1], &m->heap[child])) child++;
        if (!less(&m->heap[child], &last)) break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

/* Considers merging the symbol at `position` with the one after it. */
static void consider(bpe *m, int32_t position)
{
    if (position < 0 || m->symbols[position].next < 0) return;
    const symbol *s = &m->symbols[position];
    const merge *found = slot_of(m, pair_of(s->id, m->symbols[s->next].id));
    if (found->rank != NO_RANK)
        heap_push(
            m, (candidate){.rank = found->rank, .position = (uint32_t)position, .id = found->id});
}

static void merge_all(bpe *m)
{
    m->heap_n = 0;
    for (size_t i = 0; i < m->n; i++) consider(m, (int32_t)i);
    while (m->heap_n) {
        candidate c = heap_pop(m);
        symbol *s = &m->symbols[c.position];
        if (s->gone || s->next < 0) continue;
        symbol *right = &m->symbols[s->next];
        const merge *now = slot_of(m, pair_of(s->id, right->id));
        if (now->rank == NO_RANK || now->id != c.id) continue; /* overtaken by another merge */
        s->id = c.id;
        s->next = right->next;
        right->gone = true;
        if (s->next >= 0) m->symbols[s->next].previous = (int32_t)c.position;
        consider(m, s->previous);
        consider(m, (int32_t)c.position);
    }
}

/* Room for `more` symbols beyond those there, and for every candidate they can lead to: one for
 * each pair at first, and two more after each merge. */
static bg_status reserve(bpe *m, size_t more, bg_error *err)
{
    size_t wanted = m->n + more;
    if (wanted <= m->capacity) return BG_OK;
    size_t capacity = wanted + wanted / 2 + 64;
    if (capacity > INT32_MAX / 4)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "a word of the text has more than %d characters; break the text up",
                       INT32_MAX / 8);
    symbol *symbols = bg_realloc_array(m->symbols, capacity, sizeof *symbols);
    if (symbols) m->symbols = symbols;
    candidate *heap = bg_realloc_array(m->heap, capacity * 3, sizeof *heap);
    if (heap) m->heap = heap;
    if (!symbols || !heap)
        return bg_fail_memory(err, capacity * (sizeof *symbols + 3 * sizeof *heap),
                              "a word being tokenized");
    m->capacity = capacity;
    return BG_OK;
}

static void add_symbol(bpe *m, int32_t id)
{
    int32_t i = (int32_t)m->n++;
    m->symbols[i] = (symbol){.id = id, .previous = i - 1, .next = -1};
    if (i > 0) m->symbols[i - 1].next = i;
}

/* Adds the bytes of a character that the vocabulary lacks as tokens <0x00> to <0xFF>; false where
 * one of those is missing, too. */
static bool add_bytes(const bg_tokenizer *t, bpe *m, const char *bytes, size_t size)
{
    size_t n = m->n;
    for (size_t i = 0; i < size; i++) {
        char code[8];
        snprintf(code, sizeof code, "<0x%02X>", (uint8_t)bytes[i]);
        int32_t id = bg_vocab_find(&t->vocab, code, 6);
        if (id < 0) {
            m->n = n;
            if (n) m->symbols[n - 1].next = -1;
            return false;
        }
        add_symbol(m, id);
    }
    return true;
}

static bg_status spell(const bg_tokenizer *t, bpe *m, const char *word, size_t size, bg_error *err)
{
    int32_t unk = -1; /* an unknown token that is still to be added */
    m->n = 0;
    BG_TRY(reserve(m, size + 1, err));
    for (size_t i = 0, length; i < size; i += length) {
        bg_utf8_next(word + i, &length);
        const char *s = word + i;
        size_t n = length;
        bool last = i + length == size;
        if ((i > 0 && m->prefix) || (last && m->suffix)) {
            m->spelling.size = 0;
            if (i > 0 && m->prefix) bg_text_append(&m->spelling, m->prefix, m->prefix_size);
            bg_text_append(&m->spelling, s, n);
            if (last && m->suffix) bg_text_append(&m->spelling, m->suffix, m->suffix_size);
            if (m->spelling.failed) return bg_fail_memory(err, n, "a word being tokenized");
            s = m->spelling.data;
            n = m->spelling.size;
        }
        int32_t id = bg_vocab_find(&t->vocab, s, n);
        if (id >= 0) {
            if (unk >= 0) add_symbol(m, unk);
            unk = -1;
            add_symbol(m, id);
            continue;
        }
        if (m->byte_fallback) {
            BG_TRY(reserve(m, n + size - i + 1, err));
            if (add_bytes(t, m, s, n)) continue;
        }
        if (!m->unk_token) continue; /* such a character leaves no trace */
        if (unk >= 0 && !m->fuse_unk) add_symbol(m, unk);
        unk = bg_vocab_find(&t->vocab, m->unk_token, strlen(m->unk_token));
        if (unk < 0)
            return bg_fail(err, BG_ERR_FORMAT,
                           "the tokenizer's unknown token \"%.60s\" is not in its vocabulary; "
                           "correct its file",
                           m->unk_token);
    }
    if (unk >= 0) add_symbol(m, unk);
    return BG_OK;
}

static bg_status encode_part(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                             bg_error *err)
{
    bpe *m = (bpe *)t->model;
    cached *slot = NULL;
    if (size <= CACHED_BYTES) {
        slot = &m->cache[bg_hash_bytes(word, size) & (CACHE_SLOTS - 1)];
        if (slot->size == size && memcmp(slot->word, word, size) == 0) {
            for (size_t i = 0; i < slot->n; i++) bg_ids_push(ids, slot->ids[i]);
            return BG_OK;
        }
    }
    size_t first = ids->n;
    int32_t whole = m->ignore_merges ? bg_vocab_find(&t->vocab, word, size) : -1;
    if (whole >= 0) {
        bg_ids_push(ids, whole);
    } else {
        BG_TRY(spell(t, m, word, size, err));
        merge_all(m);
        for (size_t i = 0; i < m->n; i++)
            if (!m->symbols[i].gone) bg_ids_push(ids, m->symbols[i].id);
    }
    size_t n = ids->n - first;
    if (slot && !ids->failed && n <= CACHED_IDS) {
        slot->size = (uint8_t)size;
        slot->n = (uint8_t)n;
        memcpy(slot->word, word, size);
        for (size_t i = 0; i < n; i++) slot->ids[i] = ids->data[first + i];
    }
    return BG_OK;
}

/* The bytes of the longest start of a word that no merge reaches out of. The character after it
 * must be a token, so that no run of unknown ones is cut in two. */
static size_t cut(const bg_tokenizer *t, const bpe *m, const char *word, size_t size)
{
    size_t i, n;
    uint32_t last = bg_utf8_next(word, &i), c;
    for (; i < size; i += n, last = c) {
        c = bg_utf8_next(word + i, &n);
        if (!*joint_of(m, last, c) && bg_vocab_find(&t->vocab, word + i, n) >= 0) break;
    }
    return i;
}

static bg_status bpe_encode(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                            bg_error *err)
{
    const bpe *m = (bpe *)t->model;
    if (size <= CACHED_BYTES || !m->can_cut) return encode_part(t, word, size, ids, err);
    for (size_t i = 0, n; i < size; i += n) {
        n = cut(t, m, word + i, size - i);
        BG_TRY(encode_part(t, word + i, n, ids, err));
    }
    return BG_OK;
}

const bg_model_kind bg_bpe_kind = {
    .type = "BPE", .parse = bpe_parse, .encode = bpe_encode, .free = bpe_free};
