/* An architecture is data: what it is called, how its configuration is spelled, which choices its
 * blocks make, and what its tensors are named. load.c loads and forward.c runs any of them; each
 * file in arch/ fills in one or a family. */
#ifndef BG_MODEL_ARCH_H
#define BG_MODEL_ARCH_H

#include "backend/backend.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    BG_TASK_DECODER,    /* predicts the next token */
    BG_TASK_CLASSIFIER, /* one label for a text */
    BG_TASK_SEQ2SEQ,    /* predicts the next token, given a source text that an encoder read */
    BG_TASK_ENCODER,    /* states for another model: a T5 encoder, a vision tower */
} bg_task;

/* x is the residual stream, A attention, M the MLP, N a norm. */
typedef enum {
    BG_BLOCK_PRE_NORM,  /* x += A(N(x)); x += M(N(x)) */
    BG_BLOCK_POST_NORM, /* x = N(x + A(x)); x = N(x + M(x)) */
    BG_BLOCK_PARALLEL,  /* x += A(N(x)) + M(N(x)), one norm for both */
} bg_block_kind;

/* What a tensor does in a model. */
typedef enum {
    BG_ROLE_TOKEN_EMBEDDING,
    BG_ROLE_POSITION_EMBEDDING,
    BG_ROLE_TYPE_EMBEDDING,  /* of the first of two texts and the second; here all are the first */
    BG_ROLE_PATCH_EMBEDDING, /* pixels of a patch to hidden */
    BG_ROLE_PROJECT_IN,      /* embedding to hidden, where they differ */
    BG_ROLE_EMBEDDING_NORM,
    BG_ROLE_POSITION_BIAS, /* added to the scores of every layer, by distance */
    BG_ROLE_FINAL_NORM,
    BG_ROLE_PROJECT_OUT,    /* hidden to embedding, before the head */
    BG_ROLE_PROJECTOR,      /* vision tower: hidden to the decoder's hidden */
    BG_ROLE_HEAD,           /* decoder: hidden to vocabulary */
    BG_ROLE_PRE_CLASSIFIER, /* classifier: hidden to hidden, then an activation */
    BG_ROLE_CLASSIFIER,     /* hidden to labels */
    BG_ROLE_LAYER_FIRST,    /* the rest is there once for each layer: */
    BG_ROLE_ATTENTION_NORM = BG_ROLE_LAYER_FIRST,
    BG_ROLE_QKV, /* queries, keys and values in one matrix, in this order ... */
    BG_ROLE_QUERY,
    BG_ROLE_KEY,
    BG_ROLE_VALUE,      /* ... or in three */
    BG_ROLE_QUERY_NORM, /* of each head's query and key */
    BG_ROLE_KEY_NORM,
    BG_ROLE_ATTENTION_OUTPUT,
    BG_ROLE_CROSS_NORM, /* attention to an encoder's states */
    BG_ROLE_CROSS_QUERY,
    BG_ROLE_CROSS_KEY,
    BG_ROLE_CROSS_VALUE,
    BG_ROLE_CROSS_OUTPUT,
    BG_ROLE_MLP_NORM,
    BG_ROLE_MLP_UP,
    BG_ROLE_MLP_GATE, /* activation(gate) * up, instead of activation(up) */
    BG_ROLE_MLP_DOWN,
    BG_ROLE_COUNT,
} bg_role;

/* A size of the model that a role's shape is made of. */
typedef enum {
    BG_DIM_HIDDEN,
    BG_DIM_EMBEDDING, /* of a token; mostly the same as hidden */
    BG_DIM_QUERY,     /* heads * head_dim */
    BG_DIM_KEY_VALUE, /* key-value heads * head_dim */
    BG_DIM_QKV,
    BG_DIM_HEADS,
    BG_DIM_HEAD,
    BG_DIM_INTERMEDIATE,
    BG_DIM_VOCABULARY,
    BG_DIM_POSITIONS,
    BG_DIM_TYPES,
    BG_DIM_BUCKETS,
    BG_DIM_PATCH, /* channels * patch size squared */
    BG_DIM_PROJECTION,
    BG_DIM_LABELS,
    BG_DIM_ONE, /* rows of a vector */
    BG_DIM_COUNT,
} bg_dim;

typedef struct {
    bg_dim rows, cols;
    /* transformers quantizes it: linear layers, but for output heads. That a classifier is
     * quantized is no wish of its authors (they spare a model's last parameter by name, and that is
     * the classifier's bias), but it is what they run. */
    bool quantized;
} bg_role_info;

/* Indexed by bg_role. */
extern const bg_role_info bg_roles[BG_ROLE_COUNT];

/* What a configuration may say or not. BG_YES comes second so that `true` is "always". */
typedef enum {
    BG_NO,
    BG_YES,
    BG_IF_BIAS,           /* "enable_bias" */
    BG_IF_ATTENTION_BIAS, /* "attention_bias" */
    BG_IF_MLP_BIAS,       /* "mlp_bias" */
    BG_IF_QK_NORM,        /* "qk_layernorm" */
    BG_IF_GATED,          /* "feed_forward_proj": "gated-..." */
    BG_IF_PROJECTED,      /* embeddings are not as wide as the hidden state */
    BG_IF_FINAL_NORM,
    BG_CONDITION_COUNT,
} bg_condition;

/* The tensors of a role: "<prefix><name>.weight", and where `bias` holds, "<prefix><name>.bias". A
 * name that begins with "/" takes no prefix. */
typedef struct {
    const char *name; /* with %d for the layer; NULL: this architecture has none */
    bg_condition bias;
    bg_condition only;   /* the role is there only where this holds; BG_NO: always */
    const char *ungated; /* the name where the MLP is not gated, if that is another */
} bg_tensor_name;

/* A key of config.json under the architecture's own name; config.c knows the standard ones. */
typedef struct {
    const char *standard, *own;
} bg_config_key;

typedef struct bg_arch {
    const char *model_type;       /* config.json's */
    const char *architectures[4]; /* config.json's, as far as supported */
    const char *section;          /* config.json's object with the sizes; NULL: the whole */
    const bg_config_key keys[16]; /* where two name the same, the later is preferred */
    const char *defaults;         /* JSON: what an absent key means, by the standard names */
    bg_task task;
    const struct bg_arch *encoder; /* of a BG_TASK_SEQ2SEQ, or the vision tower of a decoder */
    bg_norm_kind norm;
    bg_block_kind block;
    bool causal;
    bool cross_attention;
    bool rotary;                  /* positions turn queries and keys */
    bool gelu_is_tanh;            /* "gelu" in the file means its tanh approximation */
    bool unscaled_attention;      /* scores are not divided by sqrt(head_dim) */
    bool scaled_embedding;        /* token embeddings are multiplied by sqrt(hidden) */
    bool unbounded_positions;     /* positions have no table and no limit */
    bool prefix_attention;        /* a prompt's tokens all see each other */
    unsigned spared;              /* bits 1 << (role - BG_ROLE_LAYER_FIRST) not to quantize */
    bool linear_transposed;       /* matrices are stored (in, out), as GPT-2's Conv1D */
    int position_offset;          /* position p has row p + offset of the table */
    bool positions_after_padding; /* the offset is pad_token_id + 1, and the table's size counts it
                                   */
    bg_activation pre_classifier; /* after BG_ROLE_PRE_CLASSIFIER */
    const char *prefixes[4];      /* tried in turn on the first tensor's name */
    bg_tensor_name tensors[BG_ROLE_COUNT];
} bg_arch;

/* Every architecture that a config.json can name; ends with NULL. */
extern const bg_arch *const bg_archs[];

#endif
