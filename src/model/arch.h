/* An architecture is data: what it is called, which choices its blocks make, and what its tensors
 * are named. load.c loads and forward.c runs any of them; each file in arch/ fills in one. */
#ifndef BG_MODEL_ARCH_H
#define BG_MODEL_ARCH_H

#include "backend/backend.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    BG_TASK_DECODER,    /* predicts the next token */
    BG_TASK_CLASSIFIER, /* one label for a text */
} bg_task;

/* What a tensor does in a model. */
typedef enum {
    BG_ROLE_TOKEN_EMBEDDING,
    BG_ROLE_POSITION_EMBEDDING,
    BG_ROLE_EMBEDDING_NORM,
    BG_ROLE_FINAL_NORM,
    BG_ROLE_HEAD,           /* decoder: hidden to vocabulary */
    BG_ROLE_PRE_CLASSIFIER, /* classifier: hidden to hidden, then ReLU */
    BG_ROLE_CLASSIFIER,     /* hidden to labels */
    BG_ROLE_LAYER_FIRST,    /* the rest is there once for each layer: */
    BG_ROLE_ATTENTION_NORM = BG_ROLE_LAYER_FIRST,
    BG_ROLE_QKV, /* queries, keys and values in one matrix, in this order ... */
    BG_ROLE_QUERY,
    BG_ROLE_KEY,
    BG_ROLE_VALUE, /* ... or in three */
    BG_ROLE_ATTENTION_OUTPUT,
    BG_ROLE_MLP_NORM,
    BG_ROLE_MLP_UP,
    BG_ROLE_MLP_DOWN,
    BG_ROLE_COUNT,
} bg_role;

/* A size of the model that a role's shape is made of. */
typedef enum {
    BG_DIM_HIDDEN,
    BG_DIM_QUERY,     /* heads * head_dim */
    BG_DIM_KEY_VALUE, /* key-value heads * head_dim */
    BG_DIM_QKV,
    BG_DIM_INTERMEDIATE,
    BG_DIM_VOCABULARY,
    BG_DIM_POSITIONS,
    BG_DIM_LABELS,
    BG_DIM_ONE, /* rows of a vector */
    BG_DIM_COUNT,
} bg_dim;

typedef struct {
    bg_dim rows, cols;
    bool quantized; /* transformers quantizes it: linear layers, but for the output heads */
} bg_role_info;

/* Indexed by bg_role. */
extern const bg_role_info bg_roles[BG_ROLE_COUNT];

/* The tensors of a role: "<prefix><name>.weight", and with `bias` "<prefix><name>.bias". A name
 * that begins with "/" takes no prefix. */
typedef struct {
    const char *name; /* with %d for the layer; NULL: this architecture has none */
    bool bias;
} bg_tensor_name;

typedef struct bg_arch {
    const char *model_type;       /* config.json's */
    const char *architectures[4]; /* config.json's, as far as supported */
    bg_task task;
    bg_norm_kind norm;
    bool norm_first; /* norms before attention and MLP, not after the residual */
    bool causal;
    /* transformers spares a model's last module; where that is not the classifier, it is quantized.
     */
    bool classifier_quantized;
    bool linear_transposed; /* matrices are stored (in, out), as GPT-2's Conv1D */
    int position_offset;    /* position p has row p + offset of the table */
    const char *default_activation;
    double default_norm_eps;
    const char *prefixes[3]; /* tried in turn on the token embedding's name */
    bg_tensor_name tensors[BG_ROLE_COUNT];
} bg_arch;

/* Every architecture; ends with NULL. */
extern const bg_arch *const bg_archs[];

#endif
