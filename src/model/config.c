#include "model/config.h"

#include "core/json.h"

#include <stdio.h>
#include <string.h>

/* Limits beyond any model, close enough that products of them do not overflow; the sum of as many
 * products of two int8 codes still fits 32 bits. */
enum { MAX_SIZE = 1 << 17, MAX_LAYERS = 4096, MAX_VOCABULARY = 1 << 24 };

/* The integers: where each goes, the keys it may be under, its range. An absent optional one stays
 * -1 and is derived below. */
static const struct {
    size_t offset;
    const char *keys[4];
    int64_t max;
    bool required;
} integers[] = {
    {offsetof(bg_config, hidden_size), {"hidden_size", "n_embd", "dim", "d_model"}, MAX_SIZE, true},
    {offsetof(bg_config, num_hidden_layers),
     {"num_hidden_layers", "n_layer", "n_layers", "num_layers"},
     MAX_LAYERS,
     true},
    {offsetof(bg_config, num_attention_heads),
     {"num_attention_heads", "n_head", "n_heads", "num_heads"},
     MAX_SIZE,
     true},
    {offsetof(bg_config, num_key_value_heads), {"num_key_value_heads"}, MAX_SIZE, false},
    {offsetof(bg_config, head_dim), {"head_dim"}, MAX_SIZE, false},
    {offsetof(bg_config, intermediate_size),
     {"intermediate_size", "n_inner", "hidden_dim", "ffn_dim"},
     MAX_SIZE,
     false},
    {offsetof(bg_config, vocab_size), {"vocab_size"}, MAX_VOCABULARY, true},
    {offsetof(bg_config, max_position_embeddings),
     {"max_position_embeddings", "n_positions", "n_ctx"},
     MAX_VOCABULARY,
     true},
};

static const struct {
    const char *name;
    bg_activation activation;
} activations[] = {
    {"relu", BG_ACTIVATION_RELU},           {"gelu", BG_ACTIVATION_GELU},
    {"gelu_new", BG_ACTIVATION_GELU_TANH},  {"gelu_pytorch_tanh", BG_ACTIVATION_GELU_TANH},
    {"gelu_fast", BG_ACTIVATION_GELU_TANH}, {"silu", BG_ACTIVATION_SILU},
    {"swish", BG_ACTIVATION_SILU},
};

/* The value of the first of `keys` that is there and not null. */
static const char *present(const json_t *config, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n && keys[i]; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        if (value && !json_is_null(value)) return keys[i];
    }
    return NULL;
}

static bg_status find_arch(const json_t *config, const char *where, bg_config *out, bg_error *err)
{
    const char *model_type, *architecture = NULL;
    BG_TRY(bg_json_string(config, "model_type", where, NULL, &model_type, err));
    const json_t *list = json_object_get(config, "architectures");
    if (json_is_array(list)) architecture = json_string_value(json_array_get(list, 0));
    for (int i = 0; bg_archs[i]; i++) {
        const bg_arch *arch = bg_archs[i];
        for (int k = 0; k < 4 && arch->architectures[k]; k++) {
            bool named = architecture && strcmp(architecture, arch->architectures[k]) == 0;
            bool implied = !architecture && model_type && strcmp(model_type, arch->model_type) == 0;
            if (!named && !implied) continue;
            out->arch = arch;
            snprintf(out->architecture, sizeof out->architecture, "%s", arch->architectures[k]);
            return BG_OK;
        }
    }
    char known[256] = "";
    for (int i = 0; bg_archs[i]; i++)
        for (int k = 0; k < 4 && bg_archs[i]->architectures[k]; k++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "",
                     bg_archs[i]->architectures[k]);
        }
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "%s: architecture \"%.64s\" is not one that bitgauge can run; it runs %s", where,
                   architecture ? architecture
                   : model_type ? model_type
                                : "(none)",
                   known);
}

static bg_status parse_activation(const json_t *config, const char *where, bg_config *out,
                                  bg_error *err)
{
    static const char *const keys[] = {"activation_function", "hidden_act", "activation"};
    const char *key = present(config, keys, 3), *name;
    BG_TRY(bg_json_string(config, key ? key : keys[0], where, out->arch->default_activation, &name,
                          err));
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            out->activation = activations[i].activation;
            return BG_OK;
        }
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "%s: activation \"%.64s\" is not known; bitgauge has relu, gelu, gelu_new and "
                   "silu",
                   where, name);
}

static bg_status parse_tokens(const json_t *config, const char *where, bg_config *out,
                              bg_error *err)
{
    BG_TRY(bg_json_int(config, "bos_token_id", where, -1, MAX_VOCABULARY, -1, false,
                       &out->bos_token_id, err));
    BG_TRY(bg_json_int(config, "pad_token_id", where, -1, MAX_VOCABULARY, -1, false,
                       &out->pad_token_id, err));
    const json_t *end = json_object_get(config, "eos_token_id");
    if (!json_is_array(end)) {
        int64_t id;
        BG_TRY(bg_json_int(config, "eos_token_id", where, -1, MAX_VOCABULARY, -1, false, &id, err));
        if (id >= 0) out->end_token_ids[out->n_end_tokens++] = id;
        return BG_OK;
    }
    for (size_t i = 0; i < json_array_size(end); i++) {
        const json_t *id = json_array_get(end, i);
        if (!json_is_integer(id) || out->n_end_tokens == BG_MAX_END_TOKENS)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: \"eos_token_id\" must be a number or a list of at most %d", where,
                           BG_MAX_END_TOKENS);
        out->end_token_ids[out->n_end_tokens++] = json_integer_value(id);
    }
    return BG_OK;
}

static bg_status parse_dtype(const json_t *config, const char *where, bg_config *out, bg_error *err)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    const char *key = present(config, keys, 2), *name;
    BG_TRY(bg_json_string(config, key ? key : keys[0], where, "float32", &name, err));
    out->dtype = BG_F32;
    for (int i = 0; i < BG_DTYPE_COUNT; i++)
        if (strcmp(bg_dtypes[i].name, name) == 0) out->dtype = (bg_dtype)i;
    return BG_OK;
}

static bg_status parse_labels(const json_t *config, const char *where, bg_config *out,
                              bg_error *err)
{
    const json_t *labels = json_object_get(config, "id2label");
    int64_t fallback = json_is_object(labels) && json_object_size(labels) > 0
                           ? (int64_t)json_object_size(labels)
                           : 2;
    return bg_json_int(config, "num_labels", where, 1, MAX_SIZE, fallback, false, &out->num_labels,
                       err);
}

static bg_status check_shape(const char *where, bg_config *c, bg_error *err)
{
    if (c->num_key_value_heads < 0) c->num_key_value_heads = c->num_attention_heads;
    if (c->intermediate_size < 0) c->intermediate_size = 4 * c->hidden_size;
    if (c->head_dim < 0) {
        if (c->hidden_size % c->num_attention_heads)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: %lld attention heads do not divide a hidden size of %lld; correct "
                           "the file",
                           where, (long long)c->num_attention_heads, (long long)c->hidden_size);
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    if (c->num_attention_heads % c->num_key_value_heads)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: %lld key-value heads do not divide %lld attention heads; correct the "
                       "file",
                       where, (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
    if (c->num_attention_heads * c->head_dim > MAX_SIZE)
        return bg_fail(err, BG_ERR_FORMAT, "%s: attention heads are larger than %d in all", where,
                       MAX_SIZE);
    return BG_OK;
}

bg_status bg_config_parse(const json_t *config, const char *where, bg_config *out, bg_error *err)
{
    *out = (bg_config){0};
    if (!json_is_object(config))
        return bg_fail(err, BG_ERR_FORMAT, "%s: must be a JSON object", where);
    BG_TRY(find_arch(config, where, out, err));
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        const char *key = present(config, integers[i].keys, 4);
        BG_TRY(bg_json_int(config, key ? key : integers[i].keys[0], where, 1, integers[i].max, -1,
                           integers[i].required, (int64_t *)((char *)out + integers[i].offset),
                           err));
    }
    static const char *const eps[] = {"layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps"};
    const char *key = present(config, eps, 3);
    BG_TRY(bg_json_real(config, key ? key : eps[0], where, out->arch->default_norm_eps,
                        &out->norm_eps, err));
    if (!(out->norm_eps >= 0 && out->norm_eps < 1))
        return bg_fail(err, BG_ERR_FORMAT, "%s: the norm's epsilon must lie in [0, 1)", where);
    BG_TRY(
        bg_json_bool(config, "tie_word_embeddings", where, true, &out->tie_word_embeddings, err));
    BG_TRY(bg_json_bool(config, "scale_attn_weights", where, true, &out->scale_attention, err));
    BG_TRY(bg_json_bool(config, "scale_attn_by_inverse_layer_idx", where, false,
                        &out->scale_attention_by_layer, err));
    BG_TRY(parse_activation(config, where, out, err));
    BG_TRY(parse_dtype(config, where, out, err));
    BG_TRY(parse_tokens(config, where, out, err));
    BG_TRY(parse_labels(config, where, out, err));
    return check_shape(where, out, err);
}

void bg_config_free(bg_config *config)
{
    *config = (bg_config){0};
}
