/* The architectures, one file for each or for a family. */
#ifndef BG_MODEL_ARCH_ARCHS_H
#define BG_MODEL_ARCH_ARCHS_H

#include "model/arch.h"

extern const bg_arch bg_arch_gpt2;
extern const bg_arch bg_arch_opt;
extern const bg_arch bg_arch_llama, bg_arch_mistral, bg_arch_qwen2, bg_arch_qwen3;
extern const bg_arch bg_arch_gemma;
extern const bg_arch bg_arch_phi;
extern const bg_arch bg_arch_bert, bg_arch_roberta;
extern const bg_arch bg_arch_distilbert;
extern const bg_arch bg_arch_t5;
extern const bg_arch bg_arch_paligemma;

/* The decoder's tensors that Llama's descendants share; `qkv`, `output` and `mlp` say when those
 * have biases. Their names are Llama's. */
#define BG_LLAMA_TENSORS(qkv, output, mlp)                                                         \
    [BG_ROLE_TOKEN_EMBEDDING] = {"embed_tokens"}, [BG_ROLE_FINAL_NORM] = {"norm"},                 \
    [BG_ROLE_HEAD] = {"/lm_head"}, [BG_ROLE_ATTENTION_NORM] = {"layers.%d.input_layernorm"},       \
    [BG_ROLE_QUERY] = {"layers.%d.self_attn.q_proj", qkv},                                         \
    [BG_ROLE_KEY] = {"layers.%d.self_attn.k_proj", qkv},                                           \
    [BG_ROLE_VALUE] = {"layers.%d.self_attn.v_proj", qkv},                                         \
    [BG_ROLE_ATTENTION_OUTPUT] = {"layers.%d.self_attn.o_proj", output},                           \
    [BG_ROLE_MLP_NORM] = {"layers.%d.post_attention_layernorm"},                                   \
    [BG_ROLE_MLP_UP] = {"layers.%d.mlp.up_proj", mlp},                                             \
    [BG_ROLE_MLP_GATE] = {"layers.%d.mlp.gate_proj", mlp},                                         \
    [BG_ROLE_MLP_DOWN] = {"layers.%d.mlp.down_proj", mlp}

/* Everything of Gemma but its names and prefixes; PaliGemma's decoder is one, too. */
#define BG_GEMMA_CHOICES                                                                           \
    .keys = {{"norm_eps", "rms_norm_eps"}, {"hidden_act", "hidden_activation"}},                   \
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"gelu_pytorch_tanh\", \"head_dim\": 256,"   \
                " \"max_position_embeddings\": 8192, \"rope_theta\": 10000.0,"                     \
                " \"tie_word_embeddings\": true}",                                                 \
    .task = BG_TASK_DECODER, .norm = BG_NORM_RMS_OFFSET, .block = BG_BLOCK_PRE_NORM,               \
    .causal = true, .rotary = true, .scaled_embedding = true, .gelu_is_tanh = true,                \
    .tensors = {BG_LLAMA_TENSORS(BG_IF_ATTENTION_BIAS, BG_IF_ATTENTION_BIAS, BG_NO)}

#endif
