/* Loading: each role's tensors are found by name, checked against the shape that the configuration
 * asks for, encoded, and their pages given back, one after the other. */
#include "core/alloc.h"
#include "core/clock.h"
#include "model/model.h"
#include "quant/half.h"
#include "quant/widen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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
        [BG_DIM_EMBEDDING] = (size_t)c->embedding_size,
        [BG_DIM_QUERY] = query,
        [BG_DIM_KEY_VALUE] = key_value,
        [BG_DIM_QKV] = query + 2 * key_value,
        [BG_DIM_HEADS] = (size_t)c->num_attention_heads,
        [BG_DIM_HEAD] = (size_t)c->head_dim,
        [BG_DIM_INTERMEDIATE] = (size_t)c->intermediate_size,
        [BG_DIM_VOCABULARY] = (size_t)c->vocab_size,
        [BG_DIM_POSITIONS] = (size_t)(c->max_position_embeddings + c->position_offset),
        [BG_DIM_TYPES] = (size_t)c->type_vocab_size,
        [BG_DIM_BUCKETS] = (size_t)c->relative_attention_num_buckets,
        [BG_DIM_PATCH] = (size_t)(c->num_channels * c->patch_size * c->patch_size),
        [BG_DIM_PROJECTION] = (size_t)c->projection_dim,
        [BG_DIM_LABELS] = (size_t)c->num_labels,
        [BG_DIM_ONE] = 1,
    };
    return sizes[dim];
}

/* Whether a model of this configuration has a role's matrix, and whether in a file of its own. */
static bool has_role(const bg_config *c, bg_role role)
{
    const bg_tensor_name *t = &c->arch->tensors[role];
    return t->name && (t->only == BG_NO || c->holds[t->only]) &&
           !(role == BG_ROLE_HEAD && c->tie_word_embeddings);
}

static void full_name(const loader *l, bg_role role, int layer, const char *suffix, char name[256])
{
    const bg_config *c = &l->model->config;
    const bg_tensor_name *t = &c->arch->tensors[role];
    const char *pattern = t->ungated && !c->holds[BG_IF_GATED] ? t->ungated : t->name;
    const char *prefix = pattern[0] == '/' ? "" : l->prefix;
    char *at = name + snprintf(name, 128, "%s", prefix);
    if (pattern[0] == '/') pattern++;
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(at, 120, "%.*s%d%s%s", (int)(mark - pattern), pattern, layer, mark + 2, suffix);
    else
        snprintf(at, 120, "%s%s", pattern, suffix);
}

/* A tensor by its name or by one that older files give it: converted from TensorFlow, a norm's
 * weight is "gamma" and its bias "beta"; and for a while what stands beside a model's parts had the
 * prefix "model.". */
static const bg_tensor *find_tensor(const loader *l, const char *name)
{
    const bg_tensor *t = bg_checkpoint_find(l->checkpoint, name);
    char other[264];
    const char *dot = strrchr(name, '.');
    if (t || !dot) return t;
    snprintf(other, sizeof other, "%.*s.%s", (int)(dot - name), name,
             strcmp(dot, ".weight") == 0 ? "gamma" : "beta");
    t = bg_checkpoint_find(l->checkpoint, other);
    if (t) return t;
    snprintf(other, sizeof other, "model.%s", name);
    return bg_checkpoint_find(l->checkpoint, other);
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

/* Made-up weights need only have the right spread: 4096 normal numbers, drawn from at random. Norms
 * change nothing. */
static bg_status draw_random(loader *l, bool vector, bool bias, size_t n, void **data,
                             bg_error *err)
{
    uint16_t *values = bg_alloc_array(n, sizeof *values), pool[4096];
    if (!values) return bg_fail_memory(err, 2 * n, "random weights");
    const uint16_t one = l->model->config.arch->norm == BG_NORM_RMS_OFFSET ? 0 : 0x3C00;
    for (size_t i = 0; i < 4096; i++)
        pool[i] = bg_f32_to_f16(0.02f * next_normal(&l->random_state));
    for (size_t i = 0; i < n; i++) {
        l->random_state = l->random_state * 6364136223846793005ULL + 1442695040888963407ULL;
        values[i] = vector ? bias ? 0 : one : pool[l->random_state >> 52];
    }
    *data = values;
    return BG_OK;
}

/* A convolution's (out, channels, height, width) is a matrix (out, the rest). */
static bool has_shape(const bg_tensor *t, bool vector, const bg_source *s)
{
    if (vector) return t->rank == 1 && (size_t)t->shape[0] == s->cols;
    if (t->rank == 4)
        return (size_t)t->shape[0] == s->rows &&
               t->bytes == s->rows * s->cols * bg_dtypes[t->dtype].size;
    return t->rank == 2 && (size_t)t->shape[s->transposed ? 1 : 0] == s->rows &&
           (size_t)t->shape[s->transposed ? 0 : 1] == s->cols;
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
    const bg_tensor *t = find_tensor(l, name);
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
    if (!has_shape(t, vector, source)) {
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
    const size_t n = source->rows * source->cols;
    BG_TRY(bg_packed_alloc(l->model->other, 1, n, &rounded, err));
    bg_source half = *source;
    half.data = rounded.codes;
    half.dtype = l->model->other == BG_FORMAT_F16 ? BG_F16 : BG_BF16;
    float *values = bg_alloc_array(n, sizeof *values);
    bg_status status = BG_OK;
    if (!values) status = bg_fail_memory(err, n * sizeof *values, source->name);
    if (status == BG_OK) {
        bg_widen[source->dtype](source->data, 0, n, values);
        bg_formats[l->model->other].encode(&rounded, values, 0, n);
        status = backend->ops->weight_create(backend, &half, BG_FORMAT_F32, out, err);
    }
    bg_free(values);
    bg_packed_free(&rounded);
    return status;
}

/* Whether a role's matrix is in the precision of the run, and not in `other`. */
static bool is_quantized(const bg_arch *arch, bg_role role)
{
    if (role >= BG_ROLE_LAYER_FIRST && (arch->spared >> (role - BG_ROLE_LAYER_FIRST) & 1))
        return false;
    return bg_roles[role].quantized;
}

/* T5's relative position buckets (Raffel et al. 2019, section 2.1): distances up to a quarter (in
 * both directions) or half of the buckets have one each, those up to max_distance share the rest on
 * a logarithmic scale. */
static int64_t bucket_of(const bg_config *c, int64_t distance)
{
    int64_t buckets = c->relative_attention_num_buckets, base = 0;
    if (!c->arch->causal) {
        buckets /= 2;
        if (distance > 0) base = buckets;
        distance = llabs(distance);
    } else {
        distance = distance < 0 ? -distance : 0;
    }
    const int64_t exact = buckets / 2;
    if (distance < exact) return base + distance;
    /* In floats, as where the weights were trained: the border of two buckets is a matter of
     * rounding. */
    float place = logf((float)distance / (float)exact) /
                  (float)log((double)c->relative_attention_max_distance / (double)exact) *
                  (float)(buckets - exact);
    int64_t shared = exact + (int64_t)place;
    return base + (shared < buckets - 1 ? shared : buckets - 1);
}

/* From (buckets, heads) to what bg_attention.position_bias is: (heads, 2 max_distance + 1). */
static bg_status add_position_bias(loader *l, const bg_source *source, bg_weight **out,
                                   bg_error *err)
{
    const bg_config *c = &l->model->config;
    const size_t heads = source->cols, most = (size_t)c->relative_attention_max_distance;
    bg_source wide = *source;
    wide.rows = heads;
    wide.cols = 2 * most + 1;
    wide.dtype = BG_F32;
    float *values = bg_alloc_array(wide.rows * wide.cols, sizeof *values);
    if (!values) return bg_fail_memory(err, wide.rows * wide.cols * 4, source->name);
    for (size_t head = 0; head < heads; head++)
        for (size_t i = 0; i < wide.cols; i++) {
            size_t bucket = (size_t)bucket_of(c, (int64_t)i - (int64_t)most);
            bg_widen[source->dtype](source->data, bucket * heads + head, 1,
                                    &values[head * wide.cols + i]);
        }
    wide.data = values;
    bg_status status = add_vector(l, &wide, out, err);
    bg_free(values);
    return status;
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
    if (tensor) bg_checkpoint_prefetch(l->checkpoint, tensor);
    double start = bg_seconds();
    bg_status status;
    if (vector)
        status = add_vector(l, &source, out, err);
    else if (role == BG_ROLE_POSITION_BIAS && bg_widen[source.dtype])
        status = add_position_bias(l, &source, out, err);
    else
        status = model->backend->ops->weight_create(
            model->backend, &source,
            is_quantized(model->config.arch, role) ? model->precision : model->other, out, err);
    if (status == BG_OK) status = model->backend->ops->synchronize(model->backend, err);
    bg_free(owned);
    if (status != BG_OK) return status;
    if (tensor) bg_checkpoint_release(l->checkpoint, tensor);
    model->quantize_seconds += bg_seconds() - start;
    model->weights_bytes += (*out)->bytes;
    if (!vector && is_quantized(model->config.arch, role)) model->quantized_bytes += (*out)->bytes;
    model->n_parameters += (int64_t)(source.rows * source.cols);
    l->done += source.rows * source.cols;
    if (l->progress.call && !l->progress.call(l->progress.context, "loading", l->done, l->total))
        return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted while loading");
    return BG_OK;
}

static bg_status load_role(loader *l, bg_role role, int layer, bg_parameter *out, bg_error *err)
{
    const bg_config *c = &l->model->config;
    if (!has_role(c, role)) return BG_OK;
    BG_TRY(load_tensor(l, role, layer, false, &out->weight, err));
    if (c->holds[c->arch->tensors[role].bias])
        BG_TRY(load_tensor(l, role, layer, true, &out->bias, err));
    return BG_OK;
}

static void find_prefix(loader *l)
{
    const bg_arch *arch = l->model->config.arch;
    bg_role first = 0;
    while (!arch->tensors[first].name) first++;
    for (int i = 0; i < 4 && arch->prefixes[i]; i++) {
        char name[256];
        l->prefix = arch->prefixes[i];
        full_name(l, first, 0, ".weight", name);
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
        if (!has_role(c, role)) continue;
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

/* Whether the file has a head that is not the token embedding once more. transformers then uses
 * it, whatever the configuration says of tying. */
static bool has_own_head(const loader *l)
{
    char name[256];
    if (!l->model->config.arch->tensors[BG_ROLE_HEAD].name) return false;
    full_name(l, BG_ROLE_HEAD, 0, ".weight", name);
    const bg_tensor *head = bg_checkpoint_find(l->checkpoint, name);
    full_name(l, BG_ROLE_TOKEN_EMBEDDING, 0, ".weight", name);
    const bg_tensor *embedding = bg_checkpoint_find(l->checkpoint, name);
    if (!head || !embedding || head->data == embedding->data) return false;
    const bool same = head->dtype == embedding->dtype && head->bytes == embedding->bytes &&
                      memcmp(head->data, embedding->data, head->bytes) == 0;
    bg_checkpoint_release(l->checkpoint, head);
    return !same;
}

/* Bytes of a matrix at a precision, or in 16 or 32 bits where it is not quantized. */
static double matrix_bytes(const bg_config *c, bg_role role, const bg_format *precision)
{
    const bg_format_id other = precision->bits > 16 ? BG_FORMAT_F32 : BG_FORMAT_F16;
    const bg_format_id format =
        is_quantized(c->arch, role) ? (bg_format_id)(precision - bg_formats) : other;
    bg_packed_bytes bytes;
    if (!bg_packed_measure(format, (size_t)dimension(c, bg_roles[role].rows),
                           (size_t)dimension(c, bg_roles[role].cols), &bytes))
        return INFINITY;
    return (double)bytes.total;
}

/* Bytes of all matrices but an encoder's, or with `precision` NULL, how many values they have. */
static double count_own(const bg_config *c, const bg_format *precision)
{
    double total = 0;
    for (bg_role role = 0; role < BG_ROLE_COUNT; role++) {
        if (!has_role(c, role)) continue;
        const double layers = role >= BG_ROLE_LAYER_FIRST ? (double)c->num_hidden_layers : 1;
        total += layers * (precision ? matrix_bytes(c, role, precision)
                                     : (double)dimension(c, bg_roles[role].rows) *
                                           (double)dimension(c, bg_roles[role].cols));
    }
    return total;
}

static size_t whole_bytes(double bytes)
{
    return bytes < 0x1p62 ? (size_t)bytes : SIZE_MAX;
}

/* All of one model, without its encoder. */
static bg_status load_stack(loader *l, bg_error *err)
{
    bg_model *model = l->model;
    bg_config *c = &model->config;
    find_prefix(l);
    BG_TRY(check_no_further_layer(l, err));
    if (c->tie_word_embeddings && !l->random_weights) c->tie_word_embeddings = !has_own_head(l);
    model->backend->ops->expect(model->backend,
                                whole_bytes(count_own(c, &bg_formats[model->precision])));
    for (bg_role role = 0; role < BG_ROLE_LAYER_FIRST; role++)
        BG_TRY(load_role(l, role, 0, &model->parameters[role], err));
    for (int layer = 0; layer < (int)c->num_hidden_layers; layer++)
        for (bg_role role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++)
            BG_TRY(load_role(l, role, layer, &model->layers[layer][role], err));
    return BG_OK;
}

/* The same with its encoder's. */
static double count(const bg_config *c, const bg_format *precision)
{
    return count_own(c, precision) + (c->encoder ? count(c->encoder, precision) : 0);
}

size_t bg_model_estimate(const bg_config *config, const bg_format *precision)
{
    return whole_bytes(count(config, precision));
}

const bg_parameter *bg_model_head(const bg_model *model)
{
    const bg_parameter *own = &model->parameters[BG_ROLE_HEAD];
    return own->weight ? own : &model->parameters[BG_ROLE_TOKEN_EMBEDDING];
}

static size_t parameter_bytes(const bg_parameter *p)
{
    return (p->weight ? p->weight->bytes : 0) + (p->bias ? p->bias->bytes : 0);
}

size_t bg_model_read_bytes(const bg_model *model)
{
    static const bg_role always[] = {BG_ROLE_PROJECT_IN,     BG_ROLE_EMBEDDING_NORM,
                                     BG_ROLE_FINAL_NORM,     BG_ROLE_PROJECT_OUT,
                                     BG_ROLE_PRE_CLASSIFIER, BG_ROLE_CLASSIFIER};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        bytes += parameter_bytes(&model->parameters[always[i]]);
    if (model->config.arch->task != BG_TASK_CLASSIFIER)
        bytes += parameter_bytes(bg_model_head(model));
    for (int64_t i = 0; i < model->config.num_hidden_layers; i++)
        for (int role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++)
            if (role != BG_ROLE_CROSS_KEY && role != BG_ROLE_CROSS_VALUE)
                bytes += parameter_bytes(&model->layers[i][role]);
    return bytes;
}

/* The matrices that stay unquantized have the type of the run in 32- and 16-bit modes. Beside
 * quantized ones they have the checkpoint's own 16-bit type, or fp16, as the models are commonly
 * run: see docs/results.md. */
static bg_format_id other_format(const bg_format *precision, const bg_config *config,
                                 const bg_checkpoint *checkpoint)
{
    if (precision->bits >= 16) return (bg_format_id)(precision - bg_formats);
    return bg_checkpoint_dtype(checkpoint, config->dtype) == BG_BF16 ? BG_FORMAT_BF16
                                                                     : BG_FORMAT_F16;
}

static bg_status create(bg_backend *backend, const bg_checkpoint *checkpoint,
                        const bg_format *precision, bg_config *config, bg_model **out,
                        bg_error *err)
{
    bg_model *model = bg_calloc(1, sizeof *model);
    if (!model) return bg_fail_memory(err, sizeof *model, "a model");
    *out = model;
    model->backend = backend;
    model->config = *config;
    model->precision = (bg_format_id)(precision - bg_formats);
    model->half = bg_format_is_int8(model->precision);
    model->other = other_format(precision, config, checkpoint);
    model->layers = bg_calloc((size_t)config->num_hidden_layers, sizeof *model->layers);
    if (!model->layers) return bg_fail_memory(err, sizeof *model->layers, "the layers");
    if (!config->encoder) return BG_OK;
    return create(backend, checkpoint, precision, config->encoder, &model->encoder, err);
}

static bg_status load_all(loader *l, bg_model *model, bg_error *err)
{
    l->model = model;
    BG_TRY(load_stack(l, err));
    bg_model *encoder = model->encoder;
    if (!encoder) return BG_OK;
    BG_TRY(load_all(l, encoder, err));
    model->n_parameters += encoder->n_parameters;
    model->weights_bytes += encoder->weights_bytes;
    model->quantized_bytes += encoder->quantized_bytes;
    model->quantize_seconds += encoder->quantize_seconds;
    /* A text encoder reads with the decoder's embeddings. */
    if (model->config.arch->cross_attention)
        encoder->parameters[BG_ROLE_TOKEN_EMBEDDING] = model->parameters[BG_ROLE_TOKEN_EMBEDDING];
    return BG_OK;
}

bg_status bg_model_load(bg_backend *backend, const bg_checkpoint *checkpoint, bool random_weights,
                        const bg_format *precision, bg_progress progress, bg_model **out,
                        bg_error *err)
{
    *out = NULL;
    bg_config config;
    bg_model *model = NULL;
    bg_status status = bg_config_load(checkpoint, &config, err);
    if (status == BG_OK) status = create(backend, checkpoint, precision, &config, &model, err);
    if (!model) {
        bg_config_free(&config);
        return status;
    }
    if (status == BG_OK) {
        loader l = {.checkpoint = checkpoint,
                    .random_weights = random_weights,
                    .random_state = 0x9E3779B97F4A7C15ULL,
                    .progress = progress,
                    .total = (uint64_t)count(&config, NULL)};
        status = load_all(&l, model, err);
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
    if (model->encoder) {
        if (model->config.arch->cross_attention)
            model->encoder->parameters[BG_ROLE_TOKEN_EMBEDDING] = (bg_parameter){0};
        bg_model_free(model->encoder);
    }
    for (int role = 0; role < BG_ROLE_LAYER_FIRST; role++)
        free_parameter(model, &model->parameters[role]);
    for (int64_t i = 0; model->layers && i < model->config.num_hidden_layers; i++)
        for (int role = BG_ROLE_LAYER_FIRST; role < BG_ROLE_COUNT; role++)
            free_parameter(model, &model->layers[i][role]);
    bg_free(model->layers);
    bg_config_free(&model->config);
    bg_free(model);
}
