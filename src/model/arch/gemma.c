/* Gemma (Gemma Team 2024, arXiv:2403.08295): Llama's blocks with norms that multiply by 1 + weight,
 * embeddings scaled by sqrt(hidden), GELU in the gate, heads as wide as the file says, and a tied
 * head. The first releases say "gelu" and mean its tanh approximation. */
#include "model/arch/archs.h"

const bg_arch bg_arch_gemma = {
    .model_type = "gemma",
    .architectures = {"GemmaForCausalLM"},
    .keys = {{"norm_eps", "rms_norm_eps"}, {"hidden_act", "hidden_activation"}},
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"gelu_pytorch_tanh\", \"head_dim\": 256,"
                " \"max_position_embeddings\": 8192, \"rope_theta\": 10000.0,"
                " \"tie_word_embeddings\": true}",
    .task = BG_TASK_DECODER,
    .norm = BG_NORM_RMS_OFFSET,
    .block = BG_BLOCK_PRE_NORM,
    .causal = true,
    .rotary = true,
    .scaled_embedding = true,
    .gelu_is_tanh = true,
    .prefixes = {"model.", ""},
    .tensors = {BG_LLAMA_TENSORS(BG_IF_ATTENTION_BIAS, BG_IF_ATTENTION_BIAS, BG_NO)},
};
