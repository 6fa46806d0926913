#include "model/arch.h"

#include "model/arch/archs.h"

const bg_role_info bg_roles[BG_ROLE_COUNT] = {
    [BG_ROLE_TOKEN_EMBEDDING] = {BG_DIM_VOCABULARY, BG_DIM_EMBEDDING, false},
    [BG_ROLE_POSITION_EMBEDDING] = {BG_DIM_POSITIONS, BG_DIM_HIDDEN, false},
    [BG_ROLE_TYPE_EMBEDDING] = {BG_DIM_TYPES, BG_DIM_HIDDEN, false},
    [BG_ROLE_PATCH_EMBEDDING] = {BG_DIM_HIDDEN, BG_DIM_PATCH, false},
    [BG_ROLE_PROJECT_IN] = {BG_DIM_HIDDEN, BG_DIM_EMBEDDING, true},
    [BG_ROLE_EMBEDDING_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_POSITION_BIAS] = {BG_DIM_BUCKETS, BG_DIM_HEADS, false},
    [BG_ROLE_FINAL_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_PROJECT_OUT] = {BG_DIM_EMBEDDING, BG_DIM_HIDDEN, true},
    [BG_ROLE_PROJECTOR] = {BG_DIM_PROJECTION, BG_DIM_HIDDEN, true},
    [BG_ROLE_HEAD] = {BG_DIM_VOCABULARY, BG_DIM_EMBEDDING, false},
    [BG_ROLE_PRE_CLASSIFIER] = {BG_DIM_HIDDEN, BG_DIM_HIDDEN, true},
    [BG_ROLE_CLASSIFIER] = {BG_DIM_LABELS, BG_DIM_HIDDEN, true},
    [BG_ROLE_ATTENTION_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_QKV] = {BG_DIM_QKV, BG_DIM_HIDDEN, true},
    [BG_ROLE_QUERY] = {BG_DIM_QUERY, BG_DIM_HIDDEN, true},
    [BG_ROLE_KEY] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_VALUE] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_QUERY_NORM] = {BG_DIM_ONE, BG_DIM_HEAD, false},
    [BG_ROLE_KEY_NORM] = {BG_DIM_ONE, BG_DIM_HEAD, false},
    [BG_ROLE_ATTENTION_OUTPUT] = {BG_DIM_HIDDEN, BG_DIM_QUERY, true},
    [BG_ROLE_CROSS_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_CROSS_QUERY] = {BG_DIM_QUERY, BG_DIM_HIDDEN, true},
    [BG_ROLE_CROSS_KEY] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_CROSS_VALUE] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_CROSS_OUTPUT] = {BG_DIM_HIDDEN, BG_DIM_QUERY, true},
    [BG_ROLE_MLP_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_MLP_UP] = {BG_DIM_INTERMEDIATE, BG_DIM_HIDDEN, true},
    [BG_ROLE_MLP_GATE] = {BG_DIM_INTERMEDIATE, BG_DIM_HIDDEN, true},
    [BG_ROLE_MLP_DOWN] = {BG_DIM_HIDDEN, BG_DIM_INTERMEDIATE, true},
};

const bg_arch *const bg_archs[] = {
    &bg_arch_gpt2,       &bg_arch_opt,
    &bg_arch_llama,      &bg_arch_mistral,
    &bg_arch_qwen2,      &bg_arch_qwen3,
    &bg_arch_gemma,      &bg_arch_phi,
    &bg_arch_bert,       &bg_arch_roberta,
    &bg_arch_distilbert, &bg_arch_t5,
    &bg_arch_paligemma,  NULL,
};
