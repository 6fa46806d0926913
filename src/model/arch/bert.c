/* BERT (Devlin et al. 2018, arXiv:1810.04805) and RoBERTa (Liu et al. 2019, arXiv:1907.11692) for
 * sequence classification: norms after the residual, attention in both directions. The first
 * token's state goes through a linear layer and tanh to the labels. RoBERTa's positions begin
 * behind its padding id. */
#include "model/arch/archs.h"

#define ENCODER_CHOICES                                                                            \
    .keys = {{"norm_eps", "layer_norm_eps"}},                                                      \
    .defaults = "{\"norm_eps\": 1e-12, \"hidden_act\": \"gelu\", \"type_vocab_size\": 2,"          \
                " \"pad_token_id\": 1}",                                                           \
    .task = BG_TASK_CLASSIFIER, .norm = BG_NORM_LAYER, .block = BG_BLOCK_POST_NORM,                \
    .pre_classifier = BG_ACTIVATION_TANH

#define ENCODER_TENSORS                                                                            \
    [BG_ROLE_TOKEN_EMBEDDING] = {"embeddings.word_embeddings"},                                    \
    [BG_ROLE_POSITION_EMBEDDING] = {"embeddings.position_embeddings"},                             \
    [BG_ROLE_TYPE_EMBEDDING] = {"embeddings.token_type_embeddings"},                               \
    [BG_ROLE_EMBEDDING_NORM] = {"embeddings.LayerNorm", BG_YES},                                   \
    [BG_ROLE_QUERY] = {"encoder.layer.%d.attention.self.query", BG_YES},                           \
    [BG_ROLE_KEY] = {"encoder.layer.%d.attention.self.key", BG_YES},                               \
    [BG_ROLE_VALUE] = {"encoder.layer.%d.attention.self.value", BG_YES},                           \
    [BG_ROLE_ATTENTION_OUTPUT] = {"encoder.layer.%d.attention.output.dense", BG_YES},              \
    [BG_ROLE_ATTENTION_NORM] = {"encoder.layer.%d.attention.output.LayerNorm", BG_YES},            \
    [BG_ROLE_MLP_UP] = {"encoder.layer.%d.intermediate.dense", BG_YES},                            \
    [BG_ROLE_MLP_DOWN] = {"encoder.layer.%d.output.dense", BG_YES},                                \
    [BG_ROLE_MLP_NORM] = {"encoder.layer.%d.output.LayerNorm", BG_YES}

const bg_arch bg_arch_bert = {
    .model_type = "bert",
    .architectures = {"BertForSequenceClassification"},
    ENCODER_CHOICES,
    .prefixes = {"bert.", ""},
    .tensors = {ENCODER_TENSORS, [BG_ROLE_PRE_CLASSIFIER] = {"pooler.dense", BG_YES},
                [BG_ROLE_CLASSIFIER] = {"/classifier", BG_YES}},
};

const bg_arch bg_arch_roberta = {
    .model_type = "roberta",
    .architectures = {"RobertaForSequenceClassification", "XLMRobertaForSequenceClassification"},
    ENCODER_CHOICES,
    .positions_after_padding = true,
    .prefixes = {"roberta.", ""},
    .tensors = {ENCODER_TENSORS, [BG_ROLE_PRE_CLASSIFIER] = {"/classifier.dense", BG_YES},
                [BG_ROLE_CLASSIFIER] = {"/classifier.out_proj", BG_YES}},
};
