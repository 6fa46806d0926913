#include "model/arch.h"

#include "model/arch/archs.h"

const bg_role_info bg_roles[BG_ROLE_COUNT] = {
    [BG_ROLE_TOKEN_EMBEDDING] = {BG_DIM_VOCABULARY, BG_DIM_HIDDEN, false},
    [BG_ROLE_POSITION_EMBEDDING] = {BG_DIM_POSITIONS, BG_DIM_HIDDEN, false},
    [BG_ROLE_EMBEDDING_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_FINAL_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_HEAD] = {BG_DIM_VOCABULARY, BG_DIM_HIDDEN, false},
    [BG_ROLE_PRE_CLASSIFIER] = {BG_DIM_HIDDEN, BG_DIM_HIDDEN, true},
    [BG_ROLE_CLASSIFIER] = {BG_DIM_LABELS, BG_DIM_HIDDEN, false},
    [BG_ROLE_ATTENTION_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_QKV] = {BG_DIM_QKV, BG_DIM_HIDDEN, true},
    [BG_ROLE_QUERY] = {BG_DIM_QUERY, BG_DIM_HIDDEN, true},
    [BG_ROLE_KEY] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_VALUE] = {BG_DIM_KEY_VALUE, BG_DIM_HIDDEN, true},
    [BG_ROLE_ATTENTION_OUTPUT] = {BG_DIM_HIDDEN, BG_DIM_QUERY, true},
    [BG_ROLE_MLP_NORM] = {BG_DIM_ONE, BG_DIM_HIDDEN, false},
    [BG_ROLE_MLP_UP] = {BG_DIM_INTERMEDIATE, BG_DIM_HIDDEN, true},
    [BG_ROLE_MLP_DOWN] = {BG_DIM_HIDDEN, BG_DIM_INTERMEDIATE, true},
};

const bg_arch *const bg_archs[] = {
    &bg_arch_gpt2,
    &bg_arch_distilbert,
    NULL,
};
