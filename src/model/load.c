/* Loading: each role's tensors are found by name, checked against the shape that the configuration
 * asks for, encoded, and their pages given back, one after the other. */
#include "core/alloc.h"
#include "core/clock.h"
#include "model/model.h"
#include "quant/half.h"
#include "quant/widen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bg_model *model;
    const bg_checkpoint *checkpoint;
    bool random_weights;
    uint64_t random_state;
    const char *prefix;
    bg_progress progress;
    uint64_t done, total;
} loader;

static size_t dimension(const bg_config *c, bg_dim dim)
{
    const size_t query = (size_t)(c->num_attention_heads * c->head_dim);
    const size_t key_value = (size_t)(c->num_key_value_heads * c->head_dim);
    const size_t sizes[BG_DIM_COUNT] = {
        [BG_DIM_HIDDEN] = (size_t)c->hidden_size,
        [BG_DIM_QUERY] = query,
        [BG_DIM_KEY_VALUE] = key_value,
        [BG_DIM_QKV] = query + 2 * key_value,
        [BG_DIM_INTERMEDIATE] = (size_t)c->intermediate_size,
        [BG_DIM_VOCABULARY] = (size_t)c->vocab_size,
        [BG_DIM_POSITIONS] = (size_t)(c->max_position_embeddings + c->arch->position_offset),
        [BG_DIM_LABELS] = (size_t)c->num_labels,
        [BG_DIM_ONE] = 1,
    };
    return sizes[dim];
}

static void full_name(const loader *l, bg_role role, int layer, const char *suffix, char name[256])
{
    const char *pattern = l->model->config.arch->tensors[role].name;
    const char *prefix = pattern[0] == '/' ? "" : l->prefix;
    char *at = name + snprintf(name, 128, "%s", prefix);
    if (pattern[0] == '/') pattern++;
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(at, 120, "%.*s%d%s%s", (int)(mark - pattern), pattern, layer, mark + 2, suffix);
    else
        snprintf(at, 120, "%s%s", pattern, suffix);
}

/* xorshift64*, and two uniform numbers to one normal one (Box and Muller). */
static float next_normal(uint64_t *state)
{
    double u[2];
    for (int i = 0; i < 2; i++) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        u[i] = (double)((*state * 0x2545F4914F6CDD1DULL) >> 11) * 0x1p-53;
    }
    return (float)(sqrt(-2 * log(1 - u[0])) * cos(2 * 3.141592653589793 * u[1]));
}

/* Made-up weights need only have the right spread: 4096 normal numbers, drawn from at random. */
static bg_status draw_random(loader *l, bool vector, bool bias, size_t n, void **data,
                             bg_error *err)
{
    uint16_t *values = bg_alloc_array(n, sizeof *values), pool[4096];
    if (!values) return bg_fail_memory(err, 2 * n, "random weights");
    for (size_t i = 0; i < 4096; i++)
        pool[i] = bg_f32_to_f16(0.02f * next_normal(&l->random_state));
    for (size_t i = 0; i < n; i++) {
        l->random_state = l->random_state * 6364136223846793005ULL + 1442695040888963407ULL;
        values[i] = vector ? bias ? 0 : 0x3C00 : pool[l->random_state >> 52];
    }
    *data = values;
    return BG_OK;
}

static bg_status find_source(loader *l, const char *name, bool vector, bool bias, bg_source *source,
                             void **owned, const bg_tensor **tensor, bg_error *err)
{
    const size_t rows = source->rows, cols = source->cols;
    source->name = name;
    *owned = NULL;
    *tensor = NULL;
    if (l->random_weights) {
        BG_TRY(draw_random(l, vector, bias, rows * cols, owned, err));
        source->dtype = BG_F16;
        source->data = *owned;
        return BG_OK;
    }
    const bg_tensor *t = bg_checkpoint_find(l->checkpoint, name);
    char expected[64];
    if (vector)
        snprintf(expected, sizeof expected, "(%zu)", cols);
    else
        snprintf(expected, sizeof expected, "(%zu, %zu)", source->transposed ? cols : rows,
                 source->transposed ? rows : cols);
    if (!t)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: tensor \"%s\", of shape %s, is missing; the checkpoint is not complete "
                       "or of another architecture than its config.json says",
                       bg_checkpoint_directory(l->checkpoint), name, expected);
    bool same = vector ? t->rank == 1 && (size_t)t->shape[0] == cols
                       : t->rank == 2 && (size_t)t->shape[source->transposed ? 1 : 0] == rows &&
                             (size_t)t->shape[source->transposed ? 0 : 1] == cols;
    if (!same) {
        char shape[BG_MAX_RANK * 21 + 1] = "";
        for (int i = 0; i < t->rank; i++) {
            size_t used = strlen(shape);
            snprintf(shape + used, sizeof shape - used, "%s%lld", i ? ", " : "",
                     (long long)t->shape[i]);
        }
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: tensor \"%s\" has the shape (%s), but config.json asks for %s; one of "
                       "the two is wrong",
                       t->file, name, shape, expected);
    }
    source->dtype = t->dtype;
    source->data = t->data;
    *tensor = t;
    return BG_OK;
}

/* Rounds a vector to the 16-bit type of the precision, where it has one: kept in fp32, since a norm
 * or bias is small and is read in every row. */
static bg_status add_vector(loader *l, bg_source *source, bg_weight **out, bg_error *err)
{
    bg_backend *backend = l->model->backend;
    if (l->model->other == BG_FORMAT_F32 || !bg_widen[source->dtype])
        return backend->ops->weight_create(backend, source, BG_FORMAT_F32, out, err);
    bg_packed rounded;
    BG_TRY(bg_packed_alloc(l->model->other, 1, source->cols, &rounded, err));
    bg_source half = *source;
    half.data = rounded.codes;
    half.dtype = l->model->other == BG_FORMAT_F16 ? BG_F16 : BG_BF16;
    float *values = bg_alloc_array(source->cols, sizeof *values);
    bg_status status = BG_OK;
    if (!values) status = bg_fail_memory(err, source->cols * sizeof *values, source->name);
    if (status == BG_OK) {
        bg_widen[source->dtype](source->data, 0, source->cols, values);
        bg_formats[l->model->other].encode(&rounded, values, 0, source->cols);
        status = backend->ops->weight_create(backend, &half, BG_FORMAT_F32, out, err);
    }
    bg_free(values);
    bg_packed_free(&rounded);
    return status;
}

/* Whether a role's matrix is in the precision of the run, and not in `other`. */
static bool is_quantized(const bg_model *model, bg_role role)
{
    if (role == BG_ROLE_CLASSIFIER) return model->config.arch->classifier_quantized;
    return bg_roles[role].quantized;
}

static bg_status load_tensor(loader *l, bg_role role, int layer, bool bias, bg_weight **out,
                             bg_error *err)
{
    bg_model *model = l->model;
    const bg_role_info *info = &bg_roles[role];
    char name[256];
    full_name(l, role, layer, bias ? ".bias" : ".weight", name);
    bool vector = bias || info->rows == BG_DIM_ONE;
    bg_source source = {
        .rows = vector ? 1 : dimension(&model->config, info->rows),
        .cols =
            dimension(&model->config, bias && info->rows != BG_DIM_ONE ? info->rows : info->cols),
        .transposed = !vector && info->quantized && model->config.arch->linear_transposed,
    };
    void *owned;
    const bg_tensor *tensor;
    BG_TRY(find_source(l, name, vector, bias, &source, &owned, &tensor, err));
    double start = bg_seconds();
    bg_status status;
    if (vector)
        status = add_vector(l, &source, out, err);
    else
        status = model->backend->ops->weight_create(
            model->backend, &source, is_quantized(model, role) ? model->precision : model->other,
            out, err);
    if (status == BG_OK) status = model->backend->ops->synchronize(model->backend, err);
    bg_free(owned);
    if (status != BG_OK) return status;
    if (tensor) bg_checkpoint_release(l->checkpoint, tensor);
    model->quantize_seconds += bg_seconds() - start;
    model->weights_bytes += (*out)->bytes;
    if (!vector && is_quantized(model, role)) model->quantized_bytes += (*out)->bytes;
    model->n_parameters += (int64_t)(source.rows * source.cols);
    l->done += source.rows * source.cols;
    if (l->progress.call && !l->progress.call(l->progress.context, "loading", l->done, l->total))
        return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while loading");
    return BG_OK;
}

static bg_status load_role(loader *l, bg_role role, int layer, bg_parameter *out, bg_error *err)
{
    const bg_tensor_name *t = &l->model->config.arch->tensors[role];
    if (!t->name) return BG_OK;
    BG_TRY(load_tensor(l, role, layer, false, &out->weight, err));
    if (t->bias) BG_TRY(load_tensor(l, role, layer, true, &out->bias, err));
    return BG_OK;
}

static void find_prefix(loader *l)
{
    const bg_arch *arch = l->model->config.arch;
    l->prefix = arch->prefixes[0];
    for (int i = 0; i < 3 && arch->prefixes[i]; i++) {
        char name[256];
        l->prefix = arch->prefixes[i];
        full_name(l, BG_ROLE_TOKEN_EMBEDDING, 0, ".weight", name);
        if (bg_checkpoint_find(l->checkpoint, name)) return;
    }
    l->prefix = arch->prefixes[0];
}

/* A checkpoint with more layers than its configuration says would run as another model. */
static bg_status check_no_further_layer(const loader *l, bg_error *err)
{
    const bg_config *c = &l->model->config;
    char name[256];
    for (bg_role role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++) {
        if (!c->arch->tensors[role].name) continue;
        full_name(l, role, (int)c->num_hidden_layers, ".weight", name);
        if (bg_checkpoint_find(l->checkpoint, name))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: there is a tensor \"%s\", but config.json says that there are %lld "
                           "layers; one of the two is wrong",
                           bg_checkpoint_directory(l->checkpoint), name,
                           (long long)c->num_hidden_layers);
    }
    return BG_OK;
}

static bg_status load_all(loader *l, bg_error *err)
{
    bg_model *model = l->model;
    const int layers = (int)model->config.num_hidden_layers;
    BG_TRY(check_no_further_layer(l, err));
    for (bg_role role = 0; role < BG_ROLE_LAYER_FIRST; role++) {
        if (role == BG_ROLE_HEAD && l->model->config.tie_word_embeddings) continue;
        BG_TRY(load_role(l, role, 0, &model->parameters[role], err));
    }
    for (int layer = 0; layer < layers; layer++)
        for (bg_role role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++)
            BG_TRY(load_role(l, role, layer, &model->layers[layer][role], err));
    return BG_OK;
}

/* Values in the whole model, for the progress bar. */
static uint64_t count_values(const loader *l)
{
    const bg_config *c = &l->model->config;
    uint64_t total = 0;
    for (bg_role role = 0; role < BG_ROLE_COUNT; role++) {
        if (!c->arch->tensors[role].name ||
            (role == BG_ROLE_HEAD && l->model->config.tie_word_embeddings))
            continue;
        uint64_t n =
            (uint64_t)dimension(c, bg_roles[role].rows) * dimension(c, bg_roles[role].cols);
        total += role < BG_ROLE_LAYER_FIRST ? n : n * (uint64_t)c->num_hidden_layers;
    }
    return total;
}

size_t bg_model_estimate(const bg_config *config, const bg_format *precision)
{
    double total = 0;
    for (bg_role role = 0; role < BG_ROLE_COUNT; role++) {
        if (!config->arch->tensors[role].name ||
            (role == BG_ROLE_HEAD && config->tie_word_embeddings))
            continue;
        double values = (double)dimension(config, bg_roles[role].rows) *
                        (double)dimension(config, bg_roles[role].cols);
        double bits = bg_roles[role].quantized || precision->bits > 16 ? precision->bits : 16;
        total += values * bits / 8 *
                 (role < BG_ROLE_LAYER_FIRST ? 1 : (double)config->num_hidden_layers);
    }
    return total < 0x1p62 ? (size_t)total : SIZE_MAX;
}

/* The matrices that stay unquantized have the type of the run in 32- and 16-bit modes. Beside
 * quantized ones they have the checkpoint's own 16-bit type, or fp16, as the models are commonly
 * run: see docs/results.md. */
static bg_format_id other_format(const bg_format *precision, const bg_config *config,
                                 const bg_checkpoint *checkpoint)
{
    if (precision->bits >= 16) return (bg_format_id)(precision - bg_formats);
    bg_dtype dtype = config->dtype;
    if (bg_checkpoint_count(checkpoint) > 0) dtype = bg_checkpoint_tensor(checkpoint, 0)->dtype;
    return dtype == BG_BF16 ? BG_FORMAT_BF16 : BG_FORMAT_F16;
}

bg_status bg_model_load(bg_backend *backend, const bg_checkpoint *checkpoint, bool random_weights,
                        const bg_format *precision, bg_progress progress, bg_model **out,
                        bg_error *err)
{
    *out = NULL;
    bg_model *model = bg_calloc(1, sizeof *model);
    if (!model) return bg_fail_memory(err, sizeof *model, "a model");
    model->backend = backend;
    bg_status status = bg_config_parse(bg_checkpoint_config(checkpoint),
                                       bg_checkpoint_config_path(checkpoint), &model->config, err);
    if (status == BG_OK) {
        model->precision = (bg_format_id)(precision - bg_formats);
        model->other = other_format(precision, &model->config, checkpoint);
        model->layers = bg_calloc((size_t)model->config.num_hidden_layers, sizeof *model->layers);
        if (!model->layers) status = bg_fail_memory(err, sizeof *model->layers, "the layers");
    }
    if (status == BG_OK) {
        loader l = {.model = model,
                    .checkpoint = checkpoint,
                    .random_weights = random_weights,
                    .random_state = 0x9E3779B97F4A7C15ULL,
                    .progress = progress};
        find_prefix(&l);
        l.total = count_values(&l);
        status = load_all(&l, err);
    }
    if (status != BG_OK) {
        bg_model_free(model);
        return status;
    }
    *out = model;
    return BG_OK;
}

static void free_parameter(bg_model *model, bg_parameter *p)
{
    model->backend->ops->weight_free(model->backend, p->weight);
    model->backend->ops->weight_free(model->backend, p->bias);
}

void bg_model_free(bg_model *model)
{
    if (!model) return;
    for (int role = 0; role < BG_ROLE_LAYER_FIRST; role++)
        free_parameter(model, &model->parameters[role]);
    for (int64_t i = 0; model->layers && i < model->config.num_hidden_layers; i++)
        for (int role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++)
            free_parameter(model, &model->layers[i][role]);
    bg_free(model->layers);
    bg_config_free(&model->config);
    bg_free(model);
}
