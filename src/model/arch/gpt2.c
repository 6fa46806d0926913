/* GPT-2 (Radford et al. 2019), as Hugging Face publishes it: learned positions, norms first, fused
 * query-key-value matrix, Conv1D layers, which store their matrix (in, out), and an output head
 * tied to the token embedding. The first checkpoints lack the "transformer." prefix. */
#include "model/arch/archs.h"

const bg_arch bg_arch_gpt2 = {
    .model_type = "gpt2",
    .architectures = {"GPT2LMHeadModel"},
    .keys = {{"hidden_size", "n_embd"},
             {"num_hidden_layers", "n_layer"},
             {"num_attention_heads", "n_head"},
             {"intermediate_size", "n_inner"},
             {"max_position_embeddings", "n_ctx"},
             {"max_position_embeddings", "n_positions"},
             {"norm_eps", "layer_norm_epsilon"},
             {"hidden_act", "activation_function"}},
    .defaults = "{\"norm_eps\": 1e-5, \"hidden_act\": \"gelu_new\", \"tie_word_embeddings\": true}",
    .task = BG_TASK_DECODER,
    .norm = BG_NORM_LAYER,
    .block = BG_BLOCK_PRE_NORM,
    .causal = true,
    .linear_transposed = true,
    .prefixes = {"transformer.", ""},
    .tensors =
        {
            [BG_ROLE_TOKEN_EMBEDDING] = {"wte"},
            [BG_ROLE_POSITION_EMBEDDING] = {"wpe"},
            [BG_ROLE_FINAL_NORM] = {"ln_f", BG_YES},
            [BG_ROLE_HEAD] = {"/lm_head"},
            [BG_ROLE_ATTENTION_NORM] = {"h.%d.ln_1", BG_YES},
            [BG_ROLE_QKV] = {"h.%d.attn.c_attn", BG_YES},
            [BG_ROLE_ATTENTION_OUTPUT] = {"h.%d.attn.c_proj", BG_YES},
            [BG_ROLE_MLP_NORM] = {"h.%d.ln_2", BG_YES},
            [BG_ROLE_MLP_UP] = {"h.%d.mlp.c_fc", BG_YES},
            [BG_ROLE_MLP_DOWN] = {"h.%d.mlp.c_proj", BG_YES},
        },
};
