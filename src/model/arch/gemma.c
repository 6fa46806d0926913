/* Gemma (Gemma Team 2024, arXiv:2403.08295): Llama's blocks with norms that multiply by 1 + weight,
 * embeddings scaled by sqrt(hidden), GELU in the gate, heads as wide as the file says, and a tied
 * head. The first releases say "gelu" and mean its tanh approximation. */
#include "model/arch/archs.h"

const bg_arch bg_arch_gemma = {
    .model_type = "gemma",
    .architectures = {"GemmaForCausalLM"},
    BG_GEMMA_CHOICES,
    .prefixes = {"model.", ""},
};
