/* The parts of a tokenizer. */
#ifndef BG_TOKENIZER_INTERNAL_H
#define BG_TOKENIZER_INTERNAL_H

#include "core/json.h"
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
    uint32_t character;                                              /* Strip the decoder, ... */
    size_t start, stop;                                              /* Strip the decoder */
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

extern const bg_model_kind bg_bpe_kind, bg_wordpiece_kind;

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

/* Reads {"token": id, ...}. */
bg_status bg_vocab_parse(const json_t *object, const char *where, bg_vocab *vocab, bg_error *err);

/* ---- the whole ------------------------------------------------------------------------------- */

struct bg_tokenizer {
    bg_vocab vocab; /* of the model */
    const bg_model_kind *kind;
    bg_model *model;
    bg_added added;
    bg_steps normalizers, pretokenizers, decoders;
    bg_ids before, after; /* what the post-processor puts around a text */
    int32_t special[BG_TOKEN_COUNT];
    bool truncate_left;
};

/* Reads the post-processor at "post_processor" of `root` into t->before and t->after. */
bg_status bg_postprocessor_parse(const json_t *root, const char *where, bg_tokenizer *t,
                                 bg_error *err);

/* Reads vocab.json + merges.txt, or vocab.txt; `config` is tokenizer_config.json or NULL. */
bg_status bg_tokenizer_read_gpt2(const char *vocab_path, const char *merges_path,
                                 const json_t *config, bg_tokenizer *t, bg_error *err);
bg_status bg_tokenizer_read_bert(const char *vocab_path, const json_t *config, bg_tokenizer *t,
                                 bg_error *err);

bg_tokenizer *bg_tokenizer_new(void); /* empty; NULL when out of memory */

/* Builds the parts of tokenizer.json; `t` is empty before. */
bg_status bg_tokenizer_build(const json_t *root, const char *where, bg_tokenizer *t, bg_error *err);

/* The string, or the "content" of the object, at `key`; NULL where there is none. */
const char *bg_special_spelling(const json_t *config, const char *key);
/* Takes ids from the "bos_token", ... of a configuration, or (NULL) from the usual spellings. */
void bg_special_find(bg_tokenizer *t, const json_t *config);

#endif
