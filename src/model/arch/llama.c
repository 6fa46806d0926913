/* Llama (Touvron et al. 2023, arXiv:2302.13971) and those that differ from it in a choice or two:
 * RMS norms first, rotary positions, gated MLP, grouped queries. TinyLlama and SmolLM are Llamas;
 * Mistral (arXiv:2310.06825) slides a window over the keys; Qwen2 (arXiv:2407.10671) has biases on
 * queries, keys and values, and Qwen3 (arXiv:2505.09388) norms on each head's queries and keys. */
#include "model/arch/archs.h"

#define LLAMA_CHOICES                                                                              \
    .keys = {{"norm_eps", "rms_norm_eps"}}, .task = BG_TASK_DECODER, .norm = BG_NORM_RMS,          \
    .block = BG_BLOCK_PRE_NORM, .causal = true, .rotary = true, .prefixes = {"model.", ""}

const bg_arch bg_arch_llama = {
    .model_type = "llama",
    .architectures = {"LlamaForCausalLM"},
    LLAMA_CHOICES,
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"silu\", \"rope_theta\": 10000.0}",
    .tensors = {BG_LLAMA_TENSORS(BG_IF_ATTENTION_BIAS, BG_IF_ATTENTION_BIAS, BG_IF_MLP_BIAS)},
};

const bg_arch bg_arch_mistral = {
    .model_type = "mistral",
    .architectures = {"MistralForCausalLM"},
    LLAMA_CHOICES,
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"silu\", \"rope_theta\": 10000.0,"
                " \"use_sliding_window\": true, \"max_window_layers\": 0}",
    .tensors = {BG_LLAMA_TENSORS(BG_NO, BG_NO, BG_NO)},
};

const bg_arch bg_arch_qwen2 = {
    .model_type = "qwen2",
    .architectures = {"Qwen2ForCausalLM"},
    LLAMA_CHOICES,
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"silu\", \"rope_theta\": 10000.0,"
                " \"max_window_layers\": 28}",
    .tensors = {BG_LLAMA_TENSORS(BG_YES, BG_NO, BG_NO)},
};

const bg_arch bg_arch_qwen3 = {
    .model_type = "qwen3",
    .architectures = {"Qwen3ForCausalLM"},
    LLAMA_CHOICES,
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"silu\", \"rope_theta\": 10000.0,"
                " \"head_dim\": 128, \"max_window_layers\": 28}",
    .tensors = {BG_LLAMA_TENSORS(BG_IF_ATTENTION_BIAS, BG_IF_ATTENTION_BIAS, BG_NO),
                [BG_ROLE_QUERY_NORM] = {"layers.%d.self_attn.q_norm"},
                [BG_ROLE_KEY_NORM] = {"layers.%d.self_attn.k_norm"}},
};
