/* DistilBERT (Sanh et al. 2019, arXiv:1910.01108) for sequence classification: BERT's encoder with
 * half the layers and no token types; norms after the residual, attention in both directions. The
 * first token's state goes through a linear layer and ReLU to the labels. */
#include "model/arch/archs.h"

const bg_arch bg_arch_distilbert = {
    .model_type = "distilbert",
    .architectures = {"DistilBertForSequenceClassification"},
    .keys = {{"hidden_size", "dim"},
             {"num_hidden_layers", "n_layers"},
             {"num_attention_heads", "n_heads"},
             {"intermediate_size", "hidden_dim"},
             {"hidden_act", "activation"}},
    .defaults = "{\"norm_eps\": 1e-12, \"hidden_act\": \"gelu\"}",
    .task = BG_TASK_CLASSIFIER,
    .norm = BG_NORM_LAYER,
    .block = BG_BLOCK_POST_NORM,
    .pre_classifier = BG_ACTIVATION_RELU,
    .prefixes = {"distilbert.", ""},
    .tensors =
        {
            [BG_ROLE_TOKEN_EMBEDDING] = {"embeddings.word_embeddings"},
            [BG_ROLE_POSITION_EMBEDDING] = {"embeddings.position_embeddings"},
            [BG_ROLE_EMBEDDING_NORM] = {"embeddings.LayerNorm", BG_YES},
            [BG_ROLE_PRE_CLASSIFIER] = {"/pre_classifier", BG_YES},
            [BG_ROLE_CLASSIFIER] = {"/classifier", BG_YES},
            [BG_ROLE_QUERY] = {"transformer.layer.%d.attention.q_lin", BG_YES},
            [BG_ROLE_KEY] = {"transformer.layer.%d.attention.k_lin", BG_YES},
            [BG_ROLE_VALUE] = {"transformer.layer.%d.attention.v_lin", BG_YES},
            [BG_ROLE_ATTENTION_OUTPUT] = {"transformer.layer.%d.attention.out_lin", BG_YES},
            [BG_ROLE_ATTENTION_NORM] = {"transformer.layer.%d.sa_layer_norm", BG_YES},
            [BG_ROLE_MLP_UP] = {"transformer.layer.%d.ffn.lin1", BG_YES},
            [BG_ROLE_MLP_DOWN] = {"transformer.layer.%d.ffn.lin2", BG_YES},
            [BG_ROLE_MLP_NORM] = {"transformer.layer.%d.output_layer_norm", BG_YES},
        },
};
