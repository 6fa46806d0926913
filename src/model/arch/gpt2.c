/* GPT-2 (Radford et al. 2019), as Hugging Face publishes it: learned positions, norms first, fused
 * query-key-value matrix, Conv1D layers, which store their matrix (in, out), and an output head
 * tied to the token embedding. The first checkpoints lack the "transformer." prefix. */
#include "model/arch/archs.h"

const bg_arch bg_arch_gpt2 = {
    .model_type = "gpt2",
    .architectures = {"GPT2LMHeadModel"},
    .task = BG_TASK_DECODER,
    .norm = BG_NORM_LAYER,
    .norm_first = true,
    .causal = true,
    .linear_transposed = true,
    .default_activation = "gelu_new",
    .default_norm_eps = 1e-5,
    .prefixes = {"transformer.", ""},
    .tensors =
        {
            [BG_ROLE_TOKEN_EMBEDDING] = {"wte", false},
            [BG_ROLE_POSITION_EMBEDDING] = {"wpe", false},
            [BG_ROLE_FINAL_NORM] = {"ln_f", true},
            [BG_ROLE_HEAD] = {"/lm_head", false},
            [BG_ROLE_ATTENTION_NORM] = {"h.%d.ln_1", true},
            [BG_ROLE_QKV] = {"h.%d.attn.c_attn", true},
            [BG_ROLE_ATTENTION_OUTPUT] = {"h.%d.attn.c_proj", true},
            [BG_ROLE_MLP_NORM] = {"h.%d.ln_2", true},
            [BG_ROLE_MLP_UP] = {"h.%d.mlp.c_fc", true},
            [BG_ROLE_MLP_DOWN] = {"h.%d.mlp.c_proj", true},
        },
};
