/* OPT (Zhang et al. 2022, arXiv:2205.01068): learned positions from row 2 of their table on, ReLU,
 * and a tied head. opt-350m alone has its norms last, no final norm, and embeddings that are
 * narrower than the hidden state, with a projection in and out. */
#include "model/arch/archs.h"

const bg_arch bg_arch_opt = {
    .model_type = "opt",
    .architectures = {"OPTForCausalLM"},
    .keys = {{"intermediate_size", "ffn_dim"},
             {"embedding_size", "word_embed_proj_dim"},
             {"hidden_act", "activation_function"}},
    .defaults = "{\"norm_eps\": 1e-5, \"hidden_act\": \"relu\", \"tie_word_embeddings\": true}",
    .task = BG_TASK_DECODER,
    .norm = BG_NORM_LAYER,
    .block = BG_BLOCK_PRE_NORM,
    .causal = true,
    .position_offset = 2,
    .prefixes = {"model.decoder.", "decoder.", ""},
    .tensors =
        {
            [BG_ROLE_TOKEN_EMBEDDING] = {"embed_tokens"},
            [BG_ROLE_POSITION_EMBEDDING] = {"embed_positions"},
            [BG_ROLE_PROJECT_IN] = {"project_in", .only = BG_IF_PROJECTED},
            [BG_ROLE_FINAL_NORM] = {"final_layer_norm", BG_YES, .only = BG_IF_FINAL_NORM},
            [BG_ROLE_PROJECT_OUT] = {"project_out", .only = BG_IF_PROJECTED},
            [BG_ROLE_HEAD] = {"/lm_head"},
            [BG_ROLE_ATTENTION_NORM] = {"layers.%d.self_attn_layer_norm", BG_YES},
            [BG_ROLE_QUERY] = {"layers.%d.self_attn.q_proj", BG_IF_BIAS},
            [BG_ROLE_KEY] = {"layers.%d.self_attn.k_proj", BG_IF_BIAS},
            [BG_ROLE_VALUE] = {"layers.%d.self_attn.v_proj", BG_IF_BIAS},
            [BG_ROLE_ATTENTION_OUTPUT] = {"layers.%d.self_attn.out_proj", BG_IF_BIAS},
            [BG_ROLE_MLP_NORM] = {"layers.%d.final_layer_norm", BG_YES},
            [BG_ROLE_MLP_UP] = {"layers.%d.fc1", BG_IF_BIAS},
            [BG_ROLE_MLP_DOWN] = {"layers.%d.fc2", BG_IF_BIAS},
        },
};
