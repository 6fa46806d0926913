/* PaliGemma (Beyer et al. 2024, arXiv:2407.07726): a SigLIP vision tower (Zhai et al. 2023,
 * arXiv:2303.15343) whose states, projected to the decoder's width, stand where the prompt has
 * image tokens; the decoder is Gemma. Image and prompt see each other in both directions, and
 * positions count from 1. */
#include "model/arch/archs.h"

static const bg_arch siglip = {
    .model_type = "siglip_vision_model",
    .section = "vision_config",
    .keys = {{"norm_eps", "layer_norm_eps"}},
    .defaults = "{\"norm_eps\": 1e-6, \"hidden_act\": \"gelu_pytorch_tanh\","
                " \"image_size\": 224, \"patch_size\": 16, \"num_channels\": 3}",
    .task = BG_TASK_ENCODER,
    .norm = BG_NORM_LAYER,
    .block = BG_BLOCK_PRE_NORM,
    .prefixes = {"model.vision_tower.vision_model.", "vision_tower.vision_model.", "vision_tower.",
                 "model.vision_tower."},
    .tensors =
        {
            [BG_ROLE_PATCH_EMBEDDING] = {"embeddings.patch_embedding", BG_YES},
            [BG_ROLE_POSITION_EMBEDDING] = {"embeddings.position_embedding"},
            [BG_ROLE_FINAL_NORM] = {"post_layernorm", BG_YES},
            [BG_ROLE_PROJECTOR] = {"/multi_modal_projector.linear", BG_YES},
            [BG_ROLE_ATTENTION_NORM] = {"encoder.layers.%d.layer_norm1", BG_YES},
            [BG_ROLE_QUERY] = {"encoder.layers.%d.self_attn.q_proj", BG_YES},
            [BG_ROLE_KEY] = {"encoder.layers.%d.self_attn.k_proj", BG_YES},
            [BG_ROLE_VALUE] = {"encoder.layers.%d.self_attn.v_proj", BG_YES},
            [BG_ROLE_ATTENTION_OUTPUT] = {"encoder.layers.%d.self_attn.out_proj", BG_YES},
            [BG_ROLE_MLP_NORM] = {"encoder.layers.%d.layer_norm2", BG_YES},
            [BG_ROLE_MLP_UP] = {"encoder.layers.%d.mlp.fc1", BG_YES},
            [BG_ROLE_MLP_DOWN] = {"encoder.layers.%d.mlp.fc2", BG_YES},
        },
};

const bg_arch bg_arch_paligemma = {
    .model_type = "paligemma",
    .architectures = {"PaliGemmaForConditionalGeneration"},
    .section = "text_config",
    BG_GEMMA_CHOICES,
    .encoder = &siglip,
    .prefix_attention = true,
    .position_offset = 1,
    .prefixes = {"model.language_model.", "language_model.model.", "language_model.", "model."},
};
