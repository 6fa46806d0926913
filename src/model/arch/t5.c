/* T5 (Raffel et al. 2019, arXiv:1910.10683), v1.1 and Flan-T5: an encoder and a decoder that
 * attends to its states; RMS norms, no biases, no scaling of scores, and learned biases on them by
 * distance. The first release has a ReLU MLP and a tied head behind a factor of 1/sqrt(hidden); the
 * later ones a gated GELU and a head of their own. transformers keeps the MLP's last matrix ("wo")
 * in fp32 and never quantizes it, since its products overflow binary16; here it is not quantized,
 * either. */
#include "model/arch/archs.h"

#define T5_KEYS                                                                                    \
    {"hidden_size", "d_model"}, {"num_attention_heads", "num_heads"}, {"head_dim", "d_kv"},        \
        {"intermediate_size", "d_ff"}, {"norm_eps", "layer_norm_epsilon"},                         \
    {                                                                                              \
        "num_hidden_layers", "num_layers"                                                          \
    }
#define T5_CHOICES                                                                                 \
    .defaults = "{\"norm_eps\": 1e-6, \"tie_word_embeddings\": true,"                              \
                " \"feed_forward_proj\": \"relu\", \"relative_attention_num_buckets\": 32,"        \
                " \"relative_attention_max_distance\": 128}",                                      \
    .norm = BG_NORM_RMS, .block = BG_BLOCK_PRE_NORM, .unscaled_attention = true,                   \
    .unbounded_positions = true, .spared = 1u << (BG_ROLE_MLP_DOWN - BG_ROLE_LAYER_FIRST)
#define T5_TENSORS(stack, mlp)                                                                     \
    [BG_ROLE_POSITION_BIAS] = {stack ".block.0.layer.0.SelfAttention.relative_attention_bias"},    \
    [BG_ROLE_FINAL_NORM] = {stack ".final_layer_norm"},                                            \
    [BG_ROLE_ATTENTION_NORM] = {stack ".block.%d.layer.0.layer_norm"},                             \
    [BG_ROLE_QUERY] = {stack ".block.%d.layer.0.SelfAttention.q"},                                 \
    [BG_ROLE_KEY] = {stack ".block.%d.layer.0.SelfAttention.k"},                                   \
    [BG_ROLE_VALUE] = {stack ".block.%d.layer.0.SelfAttention.v"},                                 \
    [BG_ROLE_ATTENTION_OUTPUT] = {stack ".block.%d.layer.0.SelfAttention.o"},                      \
    [BG_ROLE_MLP_NORM] = {stack ".block.%d.layer." mlp ".layer_norm"},                             \
    [BG_ROLE_MLP_UP] = {stack ".block.%d.layer." mlp ".DenseReluDense.wi_1",                       \
                        .ungated = stack ".block.%d.layer." mlp ".DenseReluDense.wi"},             \
    [BG_ROLE_MLP_GATE] = {stack ".block.%d.layer." mlp ".DenseReluDense.wi_0",                     \
                          .only = BG_IF_GATED},                                                    \
    [BG_ROLE_MLP_DOWN] = {stack ".block.%d.layer." mlp ".DenseReluDense.wo"}

static const bg_arch encoder = {
    .model_type = "t5",
    .keys = {T5_KEYS},
    T5_CHOICES,
    .task = BG_TASK_ENCODER,
    .prefixes = {""},
    .tensors = {T5_TENSORS("encoder", "1")},
};

const bg_arch bg_arch_t5 = {
    .model_type = "t5",
    .architectures = {"T5ForConditionalGeneration", "T5WithLMHeadModel",
                      "MT5ForConditionalGeneration"},
    .keys = {T5_KEYS, {"num_hidden_layers", "num_decoder_layers"}},
    T5_CHOICES,
    .task = BG_TASK_SEQ2SEQ,
    .encoder = &encoder,
    .causal = true,
    .cross_attention = true,
    .prefixes = {""},
    .tensors =
        {
            T5_TENSORS("decoder", "2"),
            [BG_ROLE_TOKEN_EMBEDDING] = {"shared"},
            [BG_ROLE_HEAD] = {"lm_head"},
            [BG_ROLE_CROSS_NORM] = {"decoder.block.%d.layer.1.layer_norm"},
            [BG_ROLE_CROSS_QUERY] = {"decoder.block.%d.layer.1.EncDecAttention.q"},
            [BG_ROLE_CROSS_KEY] = {"decoder.block.%d.layer.1.EncDecAttention.k"},
            [BG_ROLE_CROSS_VALUE] = {"decoder.block.%d.layer.1.EncDecAttention.v"},
            [BG_ROLE_CROSS_OUTPUT] = {"decoder.block.%d.layer.1.EncDecAttention.o"},
        },
};
