/* A model's config.json, checked: every number in range, every choice known. Architectures spell
 * the same thing differently ("n_embd", "hidden_size", "dim"); here each has one name, the field's
 * standard one. */
#ifndef BG_MODEL_CONFIG_H
#define BG_MODEL_CONFIG_H

#include "backend/backend.h"
#include "checkpoint/checkpoint.h"
#include "core/dtype.h"
#include "core/error.h"
#include "model/arch.h"
#include "model/rope.h"

#include <jansson.h>

enum { BG_MAX_END_TOKENS = 16, BG_MAX_FORCED_TOKENS = 16, BG_MAX_LAYERS = 4096 };

typedef struct bg_config {
    const bg_arch *arch;
    char architecture[64];     /* "GPT2LMHeadModel" */
    struct bg_config *encoder; /* owned; NULL where the architecture has none */

    int64_t hidden_size;
    int64_t embedding_size; /* of tokens; hidden_size but for opt-350m */
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_key_value_heads;
    int64_t head_dim;
    int64_t intermediate_size;
    int64_t vocab_size;
    int64_t max_position_embeddings;
    int64_t position_offset; /* position p has row p + offset of the table */
    int64_t type_vocab_size;
    int64_t num_labels;                                                      /* classifiers */
    int64_t relative_attention_num_buckets, relative_attention_max_distance; /* T5 */
    int64_t image_size, patch_size, num_channels, projection_dim;            /* vision towers */

    bg_block_kind block;
    bool holds[BG_CONDITION_COUNT];
    double norm_eps;
    bg_activation activation;
    bool tie_word_embeddings;
    double embedding_scale;        /* factor on token embeddings */
    double head_scale;             /* factor on the states before the head */
    bool scale_attention;          /* scores over sqrt(head_dim) */
    bool scale_attention_by_layer; /* ... and over the layer's number, from 1 */
    bg_rope rope;
    int64_t sliding_window; /* keys that a query of a sliding layer sees, itself included; 0: all */
    uint64_t sliding_layers[BG_MAX_LAYERS / 64]; /* a bit for each layer */
    bg_dtype dtype;                              /* the type the weights are said to have */

    int64_t pad_token_id, image_token_id; /* -1: none */
    int64_t decoder_start_token_id;       /* what an encoder-decoder's texts begin with; else -1 */
    int64_t end_token_ids[BG_MAX_END_TOKENS];
    int n_end_tokens;
    int64_t forced_ids[BG_MAX_FORCED_TOKENS]; /* what every generated text begins with */
    int n_forced;
} bg_config;

/* Reads a config.json; `where` names it in errors. Released with bg_config_free, also after an
 * error. */
bg_status bg_config_parse(const json_t *config, const char *where, bg_config *out, bg_error *err);

/* Reads a checkpoint's config.json, and from generation_config.json, where there is one, how its
 * texts begin and end. Released with bg_config_free, also after an error. */
bg_status bg_config_load(const bg_checkpoint *checkpoint, bg_config *out, bg_error *err);

void bg_config_free(bg_config *config);

/* Patches of an image: the rows of a vision tower. */
size_t bg_config_patches(const bg_config *config);

static inline bool bg_config_slides(const bg_config *config, size_t layer)
{
    return config->sliding_window > 0 && (config->sliding_layers[layer / 64] >> layer % 64 & 1);
}

#endif
