/* Phi-1, 1.5 and 2 (Gunasekar et al. 2023, arXiv:2306.11644): attention and MLP side by side on one
 * LayerNorm's output, rotary positions on a part of each head, biases everywhere, the untied output
 * head included. */
#include "model/arch/archs.h"

const bg_arch bg_arch_phi = {
    .model_type = "phi",
    .architectures = {"PhiForCausalLM"},
    .keys = {{"norm_eps", "layer_norm_eps"}},
    .defaults = "{\"norm_eps\": 1e-5, \"hidden_act\": \"gelu_new\", \"rope_theta\": 10000.0,"
                " \"partial_rotary_factor\": 0.5}",
    .task = BG_TASK_DECODER,
    .norm = BG_NORM_LAYER,
    .block = BG_BLOCK_PARALLEL,
    .causal = true,
    .rotary = true,
    .prefixes = {"model.", ""},
    .tensors =
        {
            [BG_ROLE_TOKEN_EMBEDDING] = {"embed_tokens"},
            [BG_ROLE_FINAL_NORM] = {"final_layernorm", BG_YES},
            [BG_ROLE_HEAD] = {"/lm_head", BG_YES},
            [BG_ROLE_ATTENTION_NORM] = {"layers.%d.input_layernorm", BG_YES},
            [BG_ROLE_QUERY] = {"layers.%d.self_attn.q_proj", BG_YES},
            [BG_ROLE_KEY] = {"layers.%d.self_attn.k_proj", BG_YES},
            [BG_ROLE_VALUE] = {"layers.%d.self_attn.v_proj", BG_YES},
            [BG_ROLE_QUERY_NORM] = {"layers.%d.self_attn.q_layernorm", BG_YES, BG_IF_QK_NORM},
            [BG_ROLE_KEY_NORM] = {"layers.%d.self_attn.k_layernorm", BG_YES, BG_IF_QK_NORM},
            [BG_ROLE_ATTENTION_OUTPUT] = {"layers.%d.self_attn.dense", BG_YES},
            [BG_ROLE_MLP_UP] = {"layers.%d.mlp.fc1", BG_YES},
            [BG_ROLE_MLP_DOWN] = {"layers.%d.mlp.fc2", BG_YES},
        },
};
