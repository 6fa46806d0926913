#include "model/config.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Limits beyond any model, close enough that products of them do not overflow; the sum of as many
 * products of two int8 codes still fits 32 bits. */
enum { MAX_SIZE = 1 << 17, MAX_VOCABULARY = 1 << 24, MAX_IMAGE = 1 << 14 };

/* The integers: where each goes, its key, its range. An absent optional one stays -1 and is derived
 * below. Which ones a stack needs depends on what it is made of. */
typedef enum { OPTIONAL, ALWAYS, TOKENS, POSITIONS, IMAGES } need;
static const struct {
    size_t offset;
    const char *key;
    int64_t max;
    need needed;
} integers[] = {
    {offsetof(bg_config, hidden_size), "hidden_size", MAX_SIZE, ALWAYS},
    {offsetof(bg_config, embedding_size), "embedding_size", MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, num_hidden_layers), "num_hidden_layers", BG_MAX_LAYERS, ALWAYS},
    {offsetof(bg_config, num_attention_heads), "num_attention_heads", MAX_SIZE, ALWAYS},
    {offsetof(bg_config, num_key_value_heads), "num_key_value_heads", MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, head_dim), "head_dim", MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, intermediate_size), "intermediate_size", MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, vocab_size), "vocab_size", MAX_VOCABULARY, TOKENS},
    {offsetof(bg_config, max_position_embeddings), "max_position_embeddings", MAX_VOCABULARY,
     POSITIONS},
    {offsetof(bg_config, type_vocab_size), "type_vocab_size", MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, relative_attention_num_buckets), "relative_attention_num_buckets", 4096,
     OPTIONAL},
    {offsetof(bg_config, relative_attention_max_distance), "relative_attention_max_distance",
     MAX_SIZE, OPTIONAL},
    {offsetof(bg_config, image_size), "image_size", MAX_IMAGE, IMAGES},
    {offsetof(bg_config, patch_size), "patch_size", 128, IMAGES},
    {offsetof(bg_config, num_channels), "num_channels", 4, IMAGES},
};

static const struct {
    const char *name;
    bg_activation activation;
} activations[] = {
    {"relu", BG_ACTIVATION_RELU},          {"gelu", BG_ACTIVATION_GELU},
    {"gelu_new", BG_ACTIVATION_GELU_NEW},  {"gelu_pytorch_tanh", BG_ACTIVATION_GELU_TANH},
    {"gelu_fast", BG_ACTIVATION_GELU_NEW}, {"silu", BG_ACTIVATION_SILU},
    {"swish", BG_ACTIVATION_SILU},
};

/* One stack's part of a config.json being read. */
typedef struct {
    const json_t *root;   /* the whole file */
    const json_t *object; /* the stack's section of it */
    json_t *defaults;
    const char *where;
    bg_config *out;
    bg_error *err;
} parser;

/* Where a standard key's value stands, and under which key. */
typedef struct {
    const json_t *object;
    const char *key;
} place;

static bool has(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value);
}

static place find(const parser *p, const char *standard)
{
    const bg_config_key *keys = p->out->arch->keys;
    const char *named = NULL, *present = NULL;
    for (size_t i = 0; i < 16 && keys[i].standard; i++) {
        if (strcmp(keys[i].standard, standard) != 0) continue;
        named = keys[i].own;
        if (has(p->object, named)) present = named;
    }
    if (present) return (place){p->object, present};
    if (!has(p->object, standard) && has(p->defaults, standard))
        return (place){p->defaults, standard};
    return (place){p->object, named && !has(p->object, standard) ? named : standard};
}

static bg_status integer(const parser *p, const char *key, int64_t max, bool required, int64_t *out)
{
    place at = find(p, key);
    return bg_json_int(at.object, at.key, p->where, 1, max, -1, required, out, p->err);
}

static bg_status boolean(const parser *p, const char *key, bool fallback, bool *out)
{
    place at = find(p, key);
    return bg_json_bool(at.object, at.key, p->where, fallback, out, p->err);
}

static bg_status string(const parser *p, const char *key, const char **out)
{
    place at = find(p, key);
    return bg_json_string(at.object, at.key, p->where, NULL, out, p->err);
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
    char known[640] = "";
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

/* "relu", or in T5's spelling "gated-gelu", where the gated one is always the tanh approximation.
 */
static bg_status parse_activation(const parser *p)
{
    const char *name, *forward;
    BG_TRY(string(p, "hidden_act", &name));
    BG_TRY(string(p, "feed_forward_proj", &forward));
    if (forward) {
        p->out->holds[BG_IF_GATED] = strncmp(forward, "gated-", 6) == 0;
        name = strcmp(forward, "gated-gelu") == 0 ? "gelu_new"
               : p->out->holds[BG_IF_GATED]       ? forward + 6
                                                  : forward;
    }
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (name && strcmp(activations[i].name, name) == 0) {
            p->out->activation = activations[i].activation;
            if (p->out->activation == BG_ACTIVATION_GELU && p->out->arch->gelu_is_tanh)
                p->out->activation = BG_ACTIVATION_GELU_TANH;
            return BG_OK;
        }
    return bg_fail(p->err, BG_ERR_UNSUPPORTED,
                   "%s: activation \"%.64s\" is not known; bitgauge has relu, gelu, gelu_new and "
                   "silu",
                   p->where, name ? name : "(none)");
}

static bg_status parse_end_tokens(const json_t *object, const char *where, bg_config *out,
                                  bg_error *err)
{
    const json_t *end = json_object_get(object, "eos_token_id");
    if (!end || json_is_null(end)) return BG_OK;
    out->n_end_tokens = 0;
    const size_t n = json_is_array(end) ? json_array_size(end) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(end) ? json_array_get(end, i) : end;
        if (!json_is_integer(id) || out->n_end_tokens == BG_MAX_END_TOKENS)
            return bg_fail(
                err, BG_ERR_FORMAT,
                "%s: \"eos_token_id\" must be a number or a list of at most %d; correct the "
                "file",
                where, BG_MAX_END_TOKENS);
        if (json_integer_value(id) >= 0)
            out->end_token_ids[out->n_end_tokens++] = json_integer_value(id);
    }
    return BG_OK;
}

/* What config.json and generation_config.json may both say; the latter is read last. */
static bg_status parse_tokens(const json_t *object, const char *where, bg_config *out,
                              bg_error *err)
{
    const struct {
        const char *key;
        int64_t *out;
    } ids[] = {{"pad_token_id", &out->pad_token_id},
               {"decoder_start_token_id", &out->decoder_start_token_id}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        BG_TRY(bg_json_int(object, ids[i].key, where, -1, MAX_VOCABULARY, *ids[i].out, false,
                           ids[i].out, err));
    int64_t forced;
    BG_TRY(bg_json_int(object, "forced_bos_token_id", where, 0, MAX_VOCABULARY, -1, false, &forced,
                       err));
    if (forced >= 0 && out->arch->task == BG_TASK_SEQ2SEQ) {
        out->forced_ids[0] = forced;
        out->n_forced = 1;
    }
    return parse_end_tokens(object, where, out, err);
}

/* generation_config.json's list of [place, id], from place 1 on without a gap. */
static bg_status parse_forced(const json_t *object, const char *where, bg_config *out,
                              bg_error *err)
{
    const json_t *list = json_object_get(object, "forced_decoder_ids");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        const json_t *at = json_array_get(pair, 0), *id = json_array_get(pair, 1);
        if (!json_is_integer(at) || !json_is_integer(id) ||
            json_integer_value(at) != (json_int_t)i + 1 || json_integer_value(id) < 0 ||
            json_integer_value(id) > MAX_VOCABULARY || i == BG_MAX_FORCED_TOKENS)
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: \"forced_decoder_ids\" must be pairs of a place and an id, for the "
                           "places 1, 2, ... up to %d without a gap; change them or remove the key",
                           where, BG_MAX_FORCED_TOKENS);
        out->forced_ids[i] = json_integer_value(id);
        out->n_forced = (int)i + 1;
    }
    return BG_OK;
}

static bg_status parse_dtype(const parser *p)
{
    const char *key = has(p->root, "dtype") ? "dtype" : "torch_dtype", *name;
    const json_t *object = has(p->root, key) ? p->root : p->object;
    BG_TRY(bg_json_string(object, key, p->where, "float32", &name, p->err));
    p->out->dtype = BG_F32;
    for (int i = 0; i < BG_DTYPE_COUNT; i++)
        if (strcmp(bg_dtypes[i].name, name) == 0) p->out->dtype = (bg_dtype)i;
    return BG_OK;
}

static bg_status parse_labels(const parser *p)
{
    const json_t *labels = json_object_get(p->object, "id2label");
    int64_t fallback = json_is_object(labels) && json_object_size(labels) > 0
                           ? (int64_t)json_object_size(labels)
                           : 2;
    return bg_json_int(p->object, "num_labels", p->where, 1, MAX_SIZE, fallback, false,
                       &p->out->num_labels, p->err);
}

static bg_status derive_sizes(const parser *p)
{
    bg_config *c = p->out;
    if (c->num_key_value_heads < 0) c->num_key_value_heads = c->num_attention_heads;
    if (c->intermediate_size < 0) c->intermediate_size = 4 * c->hidden_size;
    /* Where nothing projects, embeddings are as wide as the hidden state, whatever the file says.
     */
    if (c->embedding_size < 0 || !c->arch->tensors[BG_ROLE_PROJECT_IN].name)
        c->embedding_size = c->hidden_size;
    if (c->intermediate_size > MAX_SIZE)
        return bg_fail(p->err, BG_ERR_FORMAT, "%s: an MLP of %lld is larger than %d", p->where,
                       (long long)c->intermediate_size, MAX_SIZE);
    if (c->type_vocab_size < 0) c->type_vocab_size = 1;
    if (c->head_dim < 0) {
        if (c->hidden_size % c->num_attention_heads)
            return bg_fail(p->err, BG_ERR_FORMAT,
                           "%s: %lld attention heads do not divide a hidden size of %lld; correct "
                           "the file",
                           p->where, (long long)c->num_attention_heads, (long long)c->hidden_size);
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    if (c->num_attention_heads % c->num_key_value_heads)
        return bg_fail(p->err, BG_ERR_FORMAT,
                       "%s: %lld key-value heads do not divide %lld attention heads; correct the "
                       "file",
                       p->where, (long long)c->num_key_value_heads,
                       (long long)c->num_attention_heads);
    if (c->num_attention_heads * c->head_dim > MAX_SIZE)
        return bg_fail(p->err, BG_ERR_FORMAT, "%s: attention heads are larger than %d in all",
                       p->where, MAX_SIZE);
    if (c->arch->tensors[BG_ROLE_PATCH_EMBEDDING].name) {
        if (c->patch_size > c->image_size)
            return bg_fail(p->err, BG_ERR_FORMAT,
                           "%s: patches of %lld pixels do not fit into images of %lld", p->where,
                           (long long)c->patch_size, (long long)c->image_size);
        c->vocab_size = 0;
        c->max_position_embeddings = (int64_t)bg_config_patches(c);
    }
    if (c->arch->unbounded_positions) c->max_position_embeddings = MAX_VOCABULARY;
    c->position_offset = c->arch->position_offset;
    if (c->arch->positions_after_padding) {
        place at = find(p, "pad_token_id");
        BG_TRY(bg_json_int(at.object, at.key, p->where, 0, MAX_VOCABULARY, 0, true,
                           &c->position_offset, p->err));
        c->position_offset++;
        c->max_position_embeddings -= c->position_offset;
    }
    if (c->max_position_embeddings < 1)
        return bg_fail(p->err, BG_ERR_FORMAT, "%s: there are no positions for tokens", p->where);
    return BG_OK;
}

static bg_status parse_integers(const parser *p)
{
    const bg_arch *arch = p->out->arch;
    const bool images = arch->tensors[BG_ROLE_PATCH_EMBEDDING].name != NULL;
    const bool required[] = {[OPTIONAL] = false,
                             [ALWAYS] = true,
                             [TOKENS] = !images,
                             [POSITIONS] = !images && !arch->unbounded_positions,
                             [IMAGES] = images};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        BG_TRY(integer(p, integers[i].key, integers[i].max, required[integers[i].needed],
                       (int64_t *)(void *)((char *)p->out + integers[i].offset)));
    BG_TRY(derive_sizes(p));
    if (arch->tensors[BG_ROLE_POSITION_BIAS].name &&
        (p->out->relative_attention_num_buckets < 4 ||
         p->out->relative_attention_max_distance <= p->out->relative_attention_num_buckets / 2))
        return bg_fail(p->err, BG_ERR_FORMAT,
                       "%s: relative attention needs at least 4 buckets and distances beyond half "
                       "of them; correct the file",
                       p->where);
    return BG_OK;
}

static bg_status parse_conditions(const parser *p)
{
    static const struct {
        bg_condition condition;
        const char *key;
        bool fallback;
    } keys[] = {
        {BG_IF_BIAS, "enable_bias", true},
        {BG_IF_ATTENTION_BIAS, "attention_bias", false},
        {BG_IF_MLP_BIAS, "mlp_bias", false},
        {BG_IF_QK_NORM, "qk_layernorm", false},
    };
    bg_config *c = p->out;
    c->holds[BG_YES] = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        BG_TRY(boolean(p, keys[i].key, keys[i].fallback, &c->holds[keys[i].condition]));
    bool before, removed, affine;
    BG_TRY(boolean(p, "do_layer_norm_before", true, &before));
    BG_TRY(boolean(p, "_remove_final_layer_norm", false, &removed));
    BG_TRY(boolean(p, "layer_norm_elementwise_affine", true, &affine));
    c->block = before ? c->arch->block : BG_BLOCK_POST_NORM;
    c->holds[BG_IF_FINAL_NORM] = before && !removed;
    c->holds[BG_IF_PROJECTED] = c->embedding_size != c->hidden_size;
    if (affine) return BG_OK;
    return bg_fail(p->err, BG_ERR_UNSUPPORTED,
                   "%s: norms without weights (\"layer_norm_elementwise_affine\": false) are not "
                   "supported",
                   p->where);
}

static bg_status parse_window(const parser *p)
{
    bg_config *c = p->out;
    bool used;
    int64_t first;
    BG_TRY(boolean(p, "use_sliding_window", false, &used));
    place at = find(p, "max_window_layers");
    BG_TRY(bg_json_int(at.object, at.key, p->where, 0, INT32_MAX, 0, false, &first, p->err));
    BG_TRY(bg_json_int(p->object, "sliding_window", p->where, 0, INT32_MAX, 0, false,
                       &c->sliding_window, p->err));
    const json_t *types = json_object_get(p->object, "layer_types");
    if (!used) c->sliding_window = 0;
    if (types && !json_is_null(types) && json_array_size(types) != (size_t)c->num_hidden_layers)
        return bg_fail(
            p->err, BG_ERR_FORMAT,
            "%s: \"layer_types\" must be a list with an entry for each of the %lld layers; "
            "correct the file",
            p->where, (long long)c->num_hidden_layers);
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (type && strcmp(type, "sliding_attention") != 0 && strcmp(type, "full_attention") != 0)
            return bg_fail(
                p->err, BG_ERR_UNSUPPORTED,
                "%s: layers of type \"%.32s\" are not supported; choose a model with full or "
                "sliding attention",
                p->where, type);
        bool slides = type ? strcmp(type, "sliding_attention") == 0 : i >= first;
        if (slides) c->sliding_layers[i / 64] |= 1ULL << i % 64;
    }
    return BG_OK;
}

/* A token embedding has as much weight as Gemma's training gave it: sqrt(hidden). T5 divides the
 * states before a tied head by the same. */
static bg_status parse_scales(const parser *p)
{
    bg_config *c = p->out;
    const double root = sqrt((double)c->hidden_size);
    c->embedding_scale = c->arch->scaled_embedding ? root : 1;
    bool scaled = false;
    if (c->arch->task == BG_TASK_SEQ2SEQ)
        BG_TRY(boolean(p, "scale_decoder_outputs", c->tie_word_embeddings, &scaled));
    c->head_scale = scaled ? 1 / root : 1;
    BG_TRY(boolean(p, "scale_attn_weights", true, &c->scale_attention));
    if (c->arch->unscaled_attention) c->scale_attention = false;
    return boolean(p, "scale_attn_by_inverse_layer_idx", false, &c->scale_attention_by_layer);
}

static bg_status parse_stack(const parser *p)
{
    bg_config *c = p->out;
    c->pad_token_id = c->decoder_start_token_id = c->image_token_id = -1;
    BG_TRY(parse_integers(p));
    place at = find(p, "norm_eps");
    BG_TRY(bg_json_real(at.object, at.key, p->where, 1e-5, &c->norm_eps, p->err));
    if (!(c->norm_eps >= 0 && c->norm_eps < 1))
        return bg_fail(p->err, BG_ERR_FORMAT,
                       "%s: the norm's epsilon must lie in [0, 1); correct the file", p->where);
    BG_TRY(boolean(p, "tie_word_embeddings", false, &c->tie_word_embeddings));
    BG_TRY(parse_conditions(p));
    BG_TRY(parse_activation(p));
    BG_TRY(parse_scales(p));
    BG_TRY(parse_window(p));
    BG_TRY(parse_dtype(p));
    BG_TRY(parse_labels(p));
    if (!c->arch->rotary) return BG_OK;
    return bg_rope_parse(p->object, p->defaults, p->where, c->head_dim, c->max_position_embeddings,
                         &c->rope, p->err);
}

/* Fills in `out`, whose arch is set, from its section of the file. */
static bg_status parse_section(const json_t *root, const char *where, bg_config *out, bg_error *err)
{
    const char *section = out->arch->section;
    parser p = {root, section ? json_object_get(root, section) : root, NULL, where, out, err};
    if (!json_is_object(p.object))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"%s\" must be an object with a model's sizes; download the file again",
                       where, section);
    p.defaults = json_loads(out->arch->defaults, 0, NULL);
    if (!p.defaults) return bg_fail_memory(err, 1024, "an architecture's defaults");
    bg_status status = parse_stack(&p);
    json_decref(p.defaults);
    return status;
}

static bg_status parse_encoder(const json_t *root, const char *where, bg_config *out, bg_error *err)
{
    bg_config *encoder = bg_calloc(1, sizeof *encoder);
    if (!encoder) return bg_fail_memory(err, sizeof *encoder, "a configuration");
    out->encoder = encoder;
    encoder->arch = out->arch->encoder;
    snprintf(encoder->architecture, sizeof encoder->architecture, "%s", out->architecture);
    BG_TRY(parse_section(root, where, encoder, err));
    encoder->projection_dim = out->hidden_size;
    int64_t id;
    BG_TRY(bg_json_int(root, "image_token_index", where, 0, MAX_VOCABULARY, -1, false, &id, err));
    return bg_json_int(root, "image_token_id", where, 0, MAX_VOCABULARY, id, false,
                       &out->image_token_id, err);
}

bg_status bg_config_parse(const json_t *config, const char *where, bg_config *out, bg_error *err)
{
    *out = (bg_config){0};
    if (!json_is_object(config))
        return bg_fail(err, BG_ERR_FORMAT, "%s: must be a JSON object", where);
    BG_TRY(find_arch(config, where, out, err));
    if (has(config, "quantization_config"))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: the checkpoint is quantized already (\"quantization_config\"); use the "
                       "original model",
                       where);
    BG_TRY(parse_section(config, where, out, err));
    if (out->arch->encoder) BG_TRY(parse_encoder(config, where, out, err));
    if (out->arch->section)
        BG_TRY(parse_tokens(json_object_get(config, out->arch->section), where, out, err));
    BG_TRY(parse_tokens(config, where, out, err));
    /* T5's texts begin with the padding token. */
    if (out->arch->task == BG_TASK_SEQ2SEQ && out->decoder_start_token_id < 0)
        out->decoder_start_token_id = out->pad_token_id > 0 ? out->pad_token_id : 0;
    return BG_OK;
}

/* Ids that are run must have an embedding. */
static bg_status check_ids(const bg_config *c, const char *where, bg_error *err)
{
    const struct {
        const char *key;
        int64_t id;
    } ids[] = {{"pad_token_id", c->arch->task == BG_TASK_CLASSIFIER ? c->pad_token_id : -1},
               {"decoder_start_token_id", c->decoder_start_token_id},
               {"forced tokens", c->n_forced > 0 ? c->forced_ids[0] : -1},
               {"forced tokens", c->n_forced > 1 ? c->forced_ids[c->n_forced - 1] : -1}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= c->vocab_size)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: id %lld (%s) is outside the vocabulary of %lld; correct the file",
                           where, (long long)ids[i].id, ids[i].key, (long long)c->vocab_size);
    return BG_OK;
}

bg_status bg_config_load(const bg_checkpoint *checkpoint, bg_config *out, bg_error *err)
{
    BG_TRY(bg_config_parse(bg_checkpoint_config(checkpoint), bg_checkpoint_config_path(checkpoint),
                           out, err));
    char *path = bg_path_join(bg_checkpoint_directory(checkpoint), "generation_config.json");
    if (!path) return bg_fail_memory(err, 256, "a path");
    json_t *generation = NULL;
    bg_status status = BG_OK;
    if (access(path, F_OK) == 0) status = bg_json_load(path, 1 << 20, &generation, err);
    if (status == BG_OK && generation) {
        status = parse_tokens(generation, path, out, err);
        if (status == BG_OK) status = parse_forced(generation, path, out, err);
        if (status == BG_OK) status = check_ids(out, path, err);
    } else if (status == BG_OK) {
        status = check_ids(out, bg_checkpoint_config_path(checkpoint), err);
    }
    json_decref(generation);
    bg_free(path);
    return status;
}

void bg_config_free(bg_config *config)
{
    bg_free(config->encoder);
    *config = (bg_config){0};
}

size_t bg_config_patches(const bg_config *config)
{
    const size_t side = (size_t)(config->image_size / config->patch_size);
    return side * side;
}
