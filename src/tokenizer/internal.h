/* The parts of a tokenizer. */
#ifndef BG_TOKENIZER_INTERNAL_H
#define BG_TOKENIZER_INTERNAL_H

#include "core/json.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/pattern.h"
#include "tokenizer/pieces.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

/* ---- steps: normalizers, pre-tokenizers, decoders ---------------------------------------------
 */

/* What becomes of the matches of a split. */
typedef enum {
    BG_SPLIT_REMOVED,
    BG_SPLIT_ISOLATED,
    BG_SPLIT_MERGED_WITH_PREVIOUS,
    BG_SPLIT_MERGED_WITH_NEXT,
    BG_SPLIT_CONTIGUOUS,
} bg_split_behavior;

/* Where Metaspace puts a space that the text does not have: before every piece, before the one that
 * begins the text, nowhere. */
typedef enum {
    BG_PREPEND_ALWAYS,
    BG_PREPEND_FIRST,
    BG_PREPEND_NEVER,
} bg_prepend_scheme;

typedef struct bg_step bg_step;

/* One row for each component type. */
typedef struct {
    const char *type; /* as tokenizer.json spells it; NULL ends the table */
    /* Reads the component's settings; NULL where it has none. */
    bg_status (*parse)(const json_t *object, const char *where, bg_step *step, bg_error *err);
    /* Normalizers and pre-tokenizers: writes what becomes of one piece of text to `out`. A
     * pre-tokenizer ends its pieces itself; what is left open is ended for it. */
    bg_status (*apply)(const bg_step *step, const char *text, size_t size, bg_pieces *out,
                       bg_error *err);
    /* Decoders: all tokens to other tokens. */
    bg_status (*decode)(const bg_step *step, const bg_pieces *in, bg_pieces *out, bg_error *err);
} bg_step_kind;

struct bg_step {
    const bg_step_kind *kind;
    bg_pattern pattern;
    char *content; /* text to put in, or a prefix or suffix */
    size_t content_size;
    bg_split_behavior behavior;
    bool invert;                                                     /* Split */
    bool add_prefix_space, use_regex;                                /* ByteLevel */
    bool clean_text, handle_chinese_chars, strip_accents, lowercase; /* BertNormalizer */
    bool left, right;                                                /* Strip the normalizer */
    bool individual_digits, cleanup;                                 /* Digits; WordPiece */
    bool split;                                                      /* Metaspace */
    bg_prepend_scheme prepend;                                       /* Metaspace */
    uint32_t character;   /* Metaspace, CharDelimiterSplit */
    size_t start, stop;   /* Strip the decoder */
    size_t length;        /* FixedLength: characters in a piece */
    char *delimiter;      /* CTC: what stands for a space */
    bg_charsmap charsmap; /* Precompiled */
};

typedef struct {
    bg_step *items; /* (n) in the order they run; sequences are laid out flat */
    size_t n, capacity;
} bg_steps;

extern const bg_step_kind bg_normalizer_kinds[], bg_pretokenizer_kinds[], bg_decoder_kinds[];

/* Parses the component at `key` of `object` (null: no steps). `list` is the key of the array in a
 * component of type "Sequence". */
bg_status bg_steps_parse(const json_t *object, const char *key, const char *list,
                         const bg_step_kind *kinds, const char *where, bg_steps *steps,
                         bg_error *err);
/* Appends a step without settings of its own; NULL when out of memory. */
bg_step *bg_steps_add(bg_steps *steps, const bg_step_kind *kinds, const char *type);
void bg_steps_free(bg_steps *steps);
/* Runs normalizers or pre-tokenizers over all pieces of text in `pieces`; `spare` is scratch. */
bg_status bg_steps_apply(const bg_steps *steps, bg_pieces *pieces, bg_pieces *spare, bg_error *err);
/* Copies the string at `key` to step->content; absent: `fallback`, or an error where that is NULL.
 */
bg_status bg_step_content(const json_t *object, const char *key, const char *fallback,
                          const char *where, bg_step *step, bg_error *err);
/* The same for a string that must be one character, which also goes to step->character. */
bg_status bg_step_character(const json_t *object, const char *key, const char *fallback,
                            const char *where, bg_step *step, bg_error *err);
/* The settings of Metaspace, which is a pre-tokenizer and a decoder. */
bg_status bg_metaspace_parse(const json_t *object, const char *where, bg_step *step, bg_error *err);
/* The pattern of ByteLevel's use_regex, GPT-2's. */
bg_status bg_byte_level_pattern(bg_step *step, const char *where, bg_error *err);

/* ---- added tokens -----------------------------------------------------------------------------
 */

typedef struct {
    char *content;    /* owned */
    char *normalized; /* owned; what is looked for in normalized text; NULL: `content`, before */
    size_t content_size, normalized_size;
    int32_t id;
    bool single_word, lstrip, rstrip, is_normalized, special;
} bg_added_token;

/* Finds the longest of a set of strings at each place of a text. */
typedef struct {
    uint32_t *order; /* (n) indices of tokens, sorted by the bytes looked for */
    size_t n;
    uint32_t first[257]; /* order[first[b]] is the first that starts with byte b or a later one */
} bg_added_set;

typedef struct {
    bg_added_token *items; /* (n) */
    size_t n, capacity;
    bg_vocab vocab;    /* contents and ids */
    bg_vocab specials; /* the contents of special tokens; the ids mean nothing */
    bg_added_set raw, normalized;
} bg_added;

/* Parses the array at "added_tokens" of `root`; ids of tokens that the model knows are the model's.
 */
bg_status bg_added_parse(const json_t *root, const char *where, const bg_vocab *model,
                         bg_added *added, bg_error *err);
/* Adds a copy of a token. */
bg_status bg_added_push(bg_added *added, const bg_added_token *token, bg_error *err);
/* The settings (lstrip, special, ...) of an added token's object. */
bg_status bg_added_settings(const json_t *item, const char *where, bg_added_token *token,
                            bg_error *err);
/* Adds the tokens that tokenizer_config.json has ("added_tokens_decoder", "bos_token", ...); where
 * it does not name one, that of `defaults` (BG_TOKEN_COUNT), if the model knows it. */
bg_status bg_added_config(bg_tokenizer *t, const json_t *config, const char *const *defaults,
                          bg_error *err);
/* Adds one special token, matched before normalization; nothing where the model lacks it. */
bg_status bg_added_special(bg_added *added, const bg_vocab *model, const char *content,
                           bg_error *err);
/* Builds the look-up tables once all tokens are there and the normalizers are known. */
bg_status bg_added_finish(bg_added *added, const bg_steps *normalizers, bg_error *err);
void bg_added_free(bg_added *added);
/* Cuts the text pieces of `in` at the tokens of one of the sets. */
bg_status bg_added_split(const bg_added *added, const bg_added_set *set, const bg_pieces *in,
                         bg_pieces *out, bg_error *err);

/* ---- models ---------------------------------------------------------------------------------- */

typedef struct bg_model bg_model;

typedef struct {
    const char *type;
    bg_status (*parse)(const json_t *object, const char *where, bg_tokenizer *t, bg_error *err);
    /* Appends the ids of one word. */
    bg_status (*encode)(const bg_tokenizer *t, const char *word, size_t size, bg_ids *ids,
                        bg_error *err);
    void (*free)(bg_model *model);
} bg_model_kind;

extern const bg_model_kind bg_bpe_kind, bg_wordpiece_kind, bg_wordlevel_kind, bg_unigram_kind;

/* Byte-pair encoding over t->vocab; settings absent from older files may be NULL. */
typedef struct {
    const char *unk_token, *continuing_subword_prefix, *end_of_word_suffix;
    bool fuse_unk, byte_fallback, ignore_merges;
} bg_bpe_settings;

bg_status bg_bpe_create(bg_tokenizer *t, const bg_bpe_settings *settings, size_t merges,
                        const char *where, bg_error *err);
/* Adds the merge of the next rank. */
bg_status bg_bpe_merge(bg_tokenizer *t, const char *left, size_t left_size, const char *right,
                       size_t right_size, const char *where, bg_error *err);
/* Splits "left right" at its one space and adds it; a line "#version..." is passed over. */
bg_status bg_bpe_merge_line(bg_tokenizer *t, const char *line, size_t size, const char *where,
                            bg_error *err);

bg_status bg_wordpiece_create(bg_tokenizer *t, const char *unk_token, const char *prefix,
                              size_t max_input_chars_per_word, const char *where, bg_error *err);

/* Unigram over t->vocab, whose ids are 0 to n - 1. Takes over `scores` (n, by id), on failure, too.
 * unk_id -1: a text with a character that no token covers is an error. */
bg_status bg_unigram_create(bg_tokenizer *t, double *scores, size_t n, int32_t unk_id,
                            bool byte_fallback, const char *where, bg_error *err);

/* The ids of the tokens "<0x00>" to "<0xFF>", -1 where there is none. */
void bg_byte_tokens(const bg_vocab *vocab, int32_t ids[256]);

/* Reads {"token": id, ...}. */
bg_status bg_vocab_parse(const json_t *object, const char *where, bg_vocab *vocab, bg_error *err);

/* ---- post-processing ------------------------------------------------------------------------- */

/* What a row consists of: tokens, and the places of the texts. */
enum { BG_TEMPLATE_A = -1, BG_TEMPLATE_B = -2 };

typedef struct {
    int32_t id; /* a token's, or BG_TEMPLATE_A or _B */
    int32_t type_id;
} bg_template_piece;

typedef struct {
    bg_template_piece *items; /* (n) */
    size_t n, capacity;
} bg_template;

/* "truncation" of tokenizer.json. */
typedef struct {
    bool enabled, left;
    enum { BG_LONGEST_FIRST, BG_ONLY_FIRST, BG_ONLY_SECOND } strategy;
    size_t max_length; /* of a row, added tokens included */
} bg_truncation;

/* "padding" of tokenizer.json. */
typedef struct {
    bool enabled, left;
    size_t length;      /* 0: of the longest row */
    size_t multiple_of; /* 0: of any length */
    int32_t id, type_id;
} bg_padding;

/* ---- the whole ------------------------------------------------------------------------------- */

struct bg_tokenizer {
    bg_vocab vocab; /* of the model */
    const bg_model_kind *kind;
    bg_model *model;
    bg_added added;
    bg_steps normalizers, pretokenizers, decoders;
    bg_template single, pair; /* what the post-processor makes of a text, of two */
    bg_truncation truncation;
    bg_padding padding;
    int32_t unk_id; /* of the model; -1: none */
    int32_t special[BG_TOKEN_COUNT];
    bool truncate_left;
};

/* Reads the post-processor at "post_processor" of `root` into t->single and t->pair. */
bg_status bg_postprocessor_parse(const json_t *root, const char *where, bg_tokenizer *t,
                                 bg_error *err);
/* The templates of a tokenizer without a post-processor: the text; the one and then the other. */
bg_status bg_template_defaults(bg_tokenizer *t, bg_error *err);
/* bos, text, eos; bos, text, eos, bos, other, eos; without those that are -1. */
bg_status bg_template_bos_eos(bg_tokenizer *t, int32_t bos, int32_t eos, bg_error *err);
/* cls, text, sep; for two, BERT's form and RoBERTa's. */
bg_status bg_template_bert(bg_tokenizer *t, int32_t cls, int32_t sep, bg_error *err);
bg_status bg_template_roberta(bg_tokenizer *t, int32_t cls, int32_t sep, bg_error *err);
/* text, eos; text, eos, other, eos. */
bg_status bg_template_t5(bg_tokenizer *t, int32_t eos, bg_error *err);
/* What "add_bos_token" and "add_eos_token" of tokenizer_config.json ask for; where they are absent,
 * nothing. */
bg_status bg_template_config(bg_tokenizer *t, const json_t *config, bg_error *err);
/* The same over tokenizer.json's post-processor, where the configuration has one of the two. */
bg_status bg_template_override(bg_tokenizer *t, const json_t *config, bg_error *err);
/* How many tokens a template adds. */
size_t bg_template_added(const bg_template *template);
bg_status bg_template_push(bg_template *template, int32_t id, int32_t type_id, bg_error *err);

/* Reads "truncation" and "padding" of `root`. */
bg_status bg_layout_parse(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err);

/* The ids of a text, without what the post-processor adds. */
bg_status bg_encode_text(const bg_tokenizer *t, const char *text, size_t size, bg_ids *ids,
                         bg_error *err);

/* Reads the bytes of a SentencePiece model file; `config` is tokenizer_config.json or NULL. */
bg_status bg_tokenizer_read_sentencepiece(const uint8_t *data, size_t size, const json_t *config,
                                          const char *where, bg_tokenizer *t, bg_error *err);

/* Reads vocab.json + merges.txt, or vocab.txt; `config` is tokenizer_config.json or NULL. */
bg_status bg_tokenizer_read_gpt2(const char *vocab_path, const char *merges_path,
                                 const json_t *config, bg_tokenizer *t, bg_error *err);
bg_status bg_tokenizer_read_bert(const char *vocab_path, const json_t *config, bg_tokenizer *t,
                                 bg_error *err);

bg_tokenizer *bg_tokenizer_new(void); /* empty; NULL when out of memory */

/* Reads "normalizer", "pre_tokenizer" and "decoder", behind what is there. */
bg_status bg_steps_parse_all(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err);

/* Builds the parts of tokenizer.json; `t` is empty before. */
bg_status bg_tokenizer_build(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err);

/* The string, or the "content" of the object, at `key`; NULL where there is none. */
const char *bg_special_spelling(const json_t *config, const char *key);
/* "bos_token", ... */
const char *bg_special_key(bg_special_token which);
/* Takes ids from the "bos_token", ... of a configuration (may be NULL); what it does not name is
 * spelled as `defaults` (BG_TOKEN_COUNT) has it, or (NULL) in one of the usual ways. */
void bg_special_find(bg_tokenizer *t, const json_t *config, const char *const *defaults);

#endif
