/* A model's config.json, checked: every number in range, every choice known. Architectures spell
 * the same thing differently ("n_embd", "hidden_size", "dim"); here each has one name, the field's
 * standard one. */
#ifndef BG_MODEL_CONFIG_H
#define BG_MODEL_CONFIG_H

#include "backend/backend.h"
#include "core/dtype.h"
#include "core/error.h"
#include "model/arch.h"

#include <jansson.h>

enum { BG_MAX_END_TOKENS = 16 };

typedef struct {
    const bg_arch *arch;
    char architecture[64]; /* "GPT2LMHeadModel" */

    int64_t hidden_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_key_value_heads;
    int64_t head_dim;
    int64_t intermediate_size;
    int64_t vocab_size;
    int64_t max_position_embeddings;
    int64_t num_labels; /* classifiers */
    double norm_eps;
    bg_activation activation;
    bool tie_word_embeddings;
    bool scale_attention;          /* scores over sqrt(head_dim) */
    bool scale_attention_by_layer; /* ... and over the layer's number, from 1 */
    bg_dtype dtype;                /* the type the weights are said to have */

    int64_t bos_token_id, pad_token_id; /* -1: none */
    int64_t end_token_ids[BG_MAX_END_TOKENS];
    int n_end_tokens;
} bg_config;

/* Reads a config.json; `where` names it in errors. */
bg_status bg_config_parse(const json_t *config, const char *where, bg_config *out, bg_error *err);
void bg_config_free(bg_config *config);

#endif
