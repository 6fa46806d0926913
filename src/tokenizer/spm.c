/* A tokenizer from a SentencePiece model file. The file has the pieces and the model; what happens
 * around them is, as in the transformers library, a matter of the tokenizer's class: each is a row
 * of the table below, in the words of tokenizer.json. A model of another class is used as
 * SentencePiece itself would use it. */
#include "core/alloc.h"
#include "core/file.h"
#include "tokenizer/internal.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <string.h>

#define MARK       "\xE2\x96\x81" /* U+2581 stands for a space */
#define METASPACE  "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":"
#define REPLACE    "{\"type\":\"Replace\",\"pattern\":{\"String\":"
#define TO_MARK    REPLACE "\" \"},\"content\":\"" MARK "\"}"
#define TO_SPACE   REPLACE "\"" MARK "\"},\"content\":\" \"}"
#define BYTES      "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"
#define STRIP_LEFT "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"
#define DECODERS   "\"decoder\":{\"type\":\"Sequence\",\"decoders\":["

/* Spaces part words, and each word begins with a mark. */
#define WORDS                                                                                      \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}"  \
    "," METASPACE "\"always\",\"split\":true}]},\"decoder\":" METASPACE                            \
    "\"always\",\"split\":true}}"

typedef struct {
    const char *class; /* how "tokenizer_class" begins; NULL: any other */
    const char *steps; /* pre-tokenizer, decoder, in tokenizer.json's form; NULL: see below */
    bool charsmap;     /* are the file's normalization rules used? */
    bool extra_ids;    /* T5: <extra_id_99> to <extra_id_0> at the end */
    bool fairseq;      /* XLM-R: <s> <pad> </s> <unk> first, <mask> last */
    enum { AROUND_CONFIG, AROUND_EOS, AROUND_PAIRS } around; /* which tokens go around a text */
    const char *defaults[BG_TOKEN_COUNT];                    /* special tokens not configured */
} family;

static const family families[] = {
    {.class = "Llama",
     .defaults = {[BG_TOKEN_BOS] = "<s>", [BG_TOKEN_EOS] = "</s>", [BG_TOKEN_UNK] = "<unk>"}},
    {.class = "CodeLlama",
     .defaults = {[BG_TOKEN_BOS] = "<s>", [BG_TOKEN_EOS] = "</s>", [BG_TOKEN_UNK] = "<unk>"}},
    {.class = "Gemma",
     .steps = "{\"normalizer\":" TO_MARK "," DECODERS TO_SPACE "," BYTES "]}}",
     .defaults = {[BG_TOKEN_BOS] = "<bos>",
                  [BG_TOKEN_EOS] = "<eos>",
                  [BG_TOKEN_UNK] = "<unk>",
                  [BG_TOKEN_PAD] = "<pad>",
                  [BG_TOKEN_MASK] = "<mask>"}},
    {.class = "T5",
     .steps = WORDS,
     .charsmap = true,
     .extra_ids = true,
     .around = AROUND_EOS,
     .defaults = {[BG_TOKEN_EOS] = "</s>", [BG_TOKEN_UNK] = "<unk>", [BG_TOKEN_PAD] = "<pad>"}},
    {.class = "XLMRoberta",
     .steps = WORDS,
     .charsmap = true,
     .fairseq = true,
     .around = AROUND_PAIRS,
     .defaults = {[BG_TOKEN_BOS] = "<s>",
                  [BG_TOKEN_EOS] = "</s>",
                  [BG_TOKEN_SEP] = "</s>",
                  [BG_TOKEN_CLS] = "<s>",
                  [BG_TOKEN_UNK] = "<unk>",
                  [BG_TOKEN_PAD] = "<pad>",
                  [BG_TOKEN_MASK] = "<mask>"}},
    {.charsmap = true,
     .defaults = {[BG_TOKEN_BOS] = "<s>", [BG_TOKEN_EOS] = "</s>", [BG_TOKEN_UNK] = "<unk>"}},
};
enum { FAMILIES = sizeof families / sizeof *families };

static bool piece_is(const bg_sentencepiece_model *m, size_t i, const char *text)
{
    return i < m->n && m->pieces[i].size == strlen(text) &&
           memcmp(m->pieces[i].text, text, m->pieces[i].size) == 0;
}

/* Without a class in the configuration, the model's own habits tell. */
static const family *find_family(const json_t *config, const bg_sentencepiece_model *m)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    if (!class && m->bpe && m->byte_fallback) class = piece_is(m, 2, "<bos>") ? "Gemma" : "Llama";
    if (!class && !m->bpe && piece_is(m, 0, "<pad>") && piece_is(m, 1, "</s>")) class = "T5";
    if (!class) class = "";
    const family *f = families;
    while (f->class && strncmp(class, f->class, strlen(f->class)) != 0) f++;
    return f;
}

/* ---- vocabulary ------------------------------------------------------------------------------ */

/* Gives the next id to a token. */
static void add_token(bg_vocab *vocab, double *scores, size_t *n, const char *text, size_t size,
                      double score)
{
    bg_vocab_add(vocab, text, size, (int32_t)*n);
    scores[(*n)++] = score;
}

static bg_status read_extra_ids(const family *f, const json_t *config, const char *where,
                                int64_t *out, bg_error *err)
{
    enum { MOST = 1000 };
    *out = 0;
    return f->extra_ids ? bg_json_int(config, "extra_ids", where, 0, MOST, 100, false, out, err)
                        : BG_OK;
}

static bg_status build_vocabulary(const bg_sentencepiece_model *m, const family *f,
                                  const json_t *config, const char *where, bg_vocab *vocab,
                                  double **scores, size_t *n, bg_error *err)
{
    static const char *const first[] = {"<s>", "<pad>", "</s>", "<unk>"};
    enum { FIRST = 4, REPLACED = 3, LONGEST_EXTRA = 32 };
    int64_t extra;
    BG_TRY(read_extra_ids(f, config, where, &extra, err));
    size_t most = m->n + FIRST + (size_t)extra;
    *scores = bg_alloc_array(most, sizeof **scores);
    if (!*scores) return bg_fail_memory(err, most * sizeof **scores, "a vocabulary");
    BG_TRY(bg_vocab_reserve(vocab, most, m->bytes + (FIRST + (size_t)extra) * LONGEST_EXTRA,
                            (int32_t)most - 1, err));
    *n = 0;
    for (size_t i = 0; f->fairseq && i < FIRST; i++)
        add_token(vocab, *scores, n, first[i], strlen(first[i]), 0);
    for (size_t i = f->fairseq ? REPLACED : 0; i < m->n; i++)
        add_token(vocab, *scores, n, m->pieces[i].text, m->pieces[i].size, m->pieces[i].score);
    if (f->fairseq) add_token(vocab, *scores, n, "<mask>", strlen("<mask>"), 0);
    while (extra-- > 0) {
        char name[LONGEST_EXTRA];
        int size = snprintf(name, sizeof name, "<extra_id_%d>", (int)extra);
        add_token(vocab, *scores, n, name, (size_t)size, 0);
    }
    vocab->id_count = *n;
    return BG_OK;
}

/* ---- merges ---------------------------------------------------------------------------------- */

/* SentencePiece merges whatever gives a piece, earlier pieces first. As merges: every way to cut a
 * piece into two others, shorter left halves first. Counts them, or adds them. */
static bg_status cut_pieces(bg_tokenizer *t, bool add, size_t *count, const char *where,
                            bg_error *err)
{
    const bg_vocab *vocab = &t->vocab;
    for (size_t e = 0; e < vocab->n; e++) {
        const char *text = vocab->bytes + vocab->entries[e].offset;
        size_t size = vocab->entries[e].size, n;
        for (size_t cut = 0; cut < size; cut += n) {
            bg_utf8_next(text + cut, &n);
            if (!cut || bg_vocab_find(vocab, text, cut) < 0 ||
                bg_vocab_find(vocab, text + cut, size - cut) < 0)
                continue;
            ++*count;
            if (add) BG_TRY(bg_bpe_merge(t, text, cut, text + cut, size - cut, where, err));
        }
    }
    return BG_OK;
}

static bg_status build_bpe(const bg_sentencepiece_model *m, const char *where, bg_tokenizer *t,
                           bg_error *err)
{
    bg_bpe_settings settings = {.fuse_unk = true, .byte_fallback = m->byte_fallback};
    size_t count = 0, added = 0;
    char *unk = bg_strndup(m->pieces[m->unknown].text, m->pieces[m->unknown].size);
    if (!unk) return bg_fail_memory(err, m->pieces[m->unknown].size, "a tokenizer");
    settings.unk_token = unk;
    bg_status status = cut_pieces(t, false, &count, where, err);
    if (status == BG_OK) status = bg_bpe_create(t, &settings, count, where, err);
    if (status == BG_OK) status = cut_pieces(t, true, &added, where, err);
    bg_free(unk);
    return status;
}

/* ---- the steps around the model -------------------------------------------------------------- */

/* LlamaTokenizer, as transformers 5 has it: a mark before the text, or ("legacy") before every
 * piece between special tokens.
 */
static void llama_steps(const json_t *config, bg_text *out)
{
    bool prefix = !json_is_false(json_object_get(config, "add_prefix_space"));
    bool legacy = json_is_true(json_object_get(config, "legacy"));
    bg_text_printf(out,
                   "{\"pre_tokenizer\":" METASPACE "\"%s\",\"split\":false}," DECODERS TO_SPACE
                   "," BYTES "%s]}}",
                   !prefix  ? "never"
                   : legacy ? "always"
                            : "first",
                   prefix ? "," STRIP_LEFT : "");
}

/* What the file's own settings ask for. */
static void plain_steps(const bg_sentencepiece_model *m, bg_text *out)
{
    bg_text_puts(out, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
                      "\"Sequence\",\"normalizers\":[]}");
    if (m->remove_extra_whitespaces)
        bg_text_puts(out, ",{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A +|[ " MARK
                          "]+\\\\z\"},\"content\":\"\"},{\"type\":\"Replace\",\"pattern\":{"
                          "\"Regex\":\" {2,}\"},\"content\":\" \"}");
    if (m->add_dummy_prefix) bg_text_puts(out, ",{\"type\":\"Prepend\",\"prepend\":\" \"}");
    if (m->escape_whitespaces) bg_text_puts(out, "," TO_MARK);
    bg_text_printf(out, "]}," DECODERS TO_SPACE "," BYTES "%s]}}",
                   m->add_dummy_prefix ? "," STRIP_LEFT : "");
}

static bg_status build_steps(const bg_sentencepiece_model *m, const family *f, const json_t *config,
                             const char *where, bg_tokenizer *t, bg_error *err)
{
    bg_text text = {0};
    json_t *root = NULL;
    if (f->charsmap && m->charsmap.at < m->charsmap.end) {
        bg_step *step = bg_steps_add(&t->normalizers, bg_normalizer_kinds, "Precompiled");
        if (!step) return bg_fail_memory(err, sizeof *step, "a tokenizer");
        BG_TRY(bg_charsmap_parse(m->charsmap.at, (size_t)(m->charsmap.end - m->charsmap.at), where,
                                 &step->charsmap, err));
        step->charsmap.longest = !f->class;
    }
    if (f->steps)
        bg_text_puts(&text, f->steps);
    else if (f->class)
        llama_steps(config, &text);
    else
        plain_steps(m, &text);
    bg_status status = text.failed ? bg_fail_memory(err, text.capacity, "a tokenizer")
                                   : bg_json_parse(text.data, text.size, where, &root, err);
    bg_text_free(&text);
    if (status == BG_OK) status = bg_steps_parse_all(root, where, t, err);
    json_decref(root);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bg_status add_pieces(const bg_sentencepiece_model *m, const family *f, bg_tokenizer *t,
                            bg_error *err)
{
    for (size_t i = 0; i < m->n; i++) {
        const bg_sentencepiece *piece = &m->pieces[i];
        bool control = piece->kind == BG_PIECE_CONTROL;
        if (!control && piece->kind != BG_PIECE_USER_DEFINED) continue;
        bg_added_token token = {.content = (char *)piece->text,
                                .content_size = piece->size,
                                .id = bg_vocab_find(&t->vocab, piece->text, piece->size),
                                .special = control};
        if (token.id >= 0) BG_TRY(bg_added_push(&t->added, &token, err));
    }
    for (size_t i = t->vocab.n; f->extra_ids && i-- > 0;) {
        const bg_vocab_entry *e = &t->vocab.entries[i];
        bg_added_token token = {.content = t->vocab.bytes + e->offset,
                                .content_size = e->size,
                                .id = e->id,
                                .special = true};
        if (strncmp(token.content, "<extra_id_", 10) != 0) break;
        BG_TRY(bg_added_push(&t->added, &token, err));
    }
    return BG_OK;
}

static bg_status build(const bg_sentencepiece_model *m, const json_t *config, const char *where,
                       bg_tokenizer *t, bg_error *err)
{
    const family *f = find_family(config, m);
    double *scores = NULL;
    size_t n = 0;
    bg_status status = build_vocabulary(m, f, config, where, &t->vocab, &scores, &n, err);
    if (status != BG_OK || m->bpe) bg_free(scores);
    BG_TRY(status);
    int32_t unk = m->unknown;
    if (f->fairseq) unk = bg_vocab_find(&t->vocab, "<unk>", strlen("<unk>"));
    BG_TRY(m->bpe ? build_bpe(m, where, t, err)
                  : bg_unigram_create(t, scores, n, unk,
                                      m->byte_fallback && f->around == AROUND_CONFIG, where, err));
    BG_TRY(build_steps(m, f, config, where, t, err));
    BG_TRY(add_pieces(m, f, t, err));
    BG_TRY(bg_added_config(t, config, f->defaults, err));
    BG_TRY(bg_added_finish(&t->added, &t->normalizers, err));
    bg_special_find(t, config, f->defaults);
    int32_t bos = t->special[BG_TOKEN_BOS], eos = t->special[BG_TOKEN_EOS];
    if (f->around == AROUND_EOS) return bg_template_t5(t, eos, err);
    if (f->around == AROUND_PAIRS && bos >= 0 && eos >= 0)
        return bg_template_roberta(t, bos, eos, err);
    return bg_template_config(t, config, err);
}

bg_status bg_tokenizer_read_sentencepiece(const uint8_t *data, size_t size, const json_t *config,
                                          const char *where, bg_tokenizer *t, bg_error *err)
{
    bg_sentencepiece_model m = {0};
    bg_status status = bg_sentencepiece_parse(data, size, where, &m, err);
    if (status == BG_OK) status = build(&m, config, where, t, err);
    bg_sentencepiece_free(&m);
    return status;
}
