/* The forward pass: one for every architecture, led by its table. */
#include "core/alloc.h"
#include "core/checked.h"
#include "model/model.h"
#include "model/pass.h"

#include <math.h>
#include <string.h>

static bg_norm norm_of(const bg_model *m, const bg_parameter *parameter)
{
    return (bg_norm){m->config.arch->norm, parameter->weight, parameter->bias,
                     (float)m->config.norm_eps};
}

static bg_status norm(const bg_pass *p, const bg_parameter *parameter, const bg_act *in,
                      bg_act *out)
{
    const bg_model *m = p->run->model;
    const bg_norm args = norm_of(m, parameter);
    return m->backend->ops->norm(m->backend, &args, in, p->n_rows, out, p->err);
}

/* in W^T + bias + residual, of an input that is not read any more. */
static bg_status add_last(const bg_pass *p, const bg_parameter *parameter, const bg_act *in,
                          const bg_act *residual, bg_act *out)
{
    return bg_pass_layer(p, parameter,
                         (bg_linear){.in = in, .consumes = true, .residual = residual, .out = out});
}

/* ---- one block ------------------------------------------------------------------------------- */

static float attention_scale(const bg_config *c, size_t layer)
{
    double scale = c->scale_attention ? 1 / sqrt((double)c->head_dim) : 1;
    if (c->scale_attention_by_layer) scale /= (double)(layer + 1);
    return (float)scale;
}

/* Queries, keys and values of `in`, and attention over them, to run->attended. `last`: nobody reads
 * `in` after that. */
static bg_status attend(const bg_pass *p, const bg_parameter *layer, const bg_act *in, bool last)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    const size_t query = (size_t)(c->num_attention_heads * c->head_dim);
    const size_t key_value = (size_t)(c->num_key_value_heads * c->head_dim);
    const struct {
        bg_role role;
        size_t col;
    } parts[] = {{BG_ROLE_QKV, 0},
                 {BG_ROLE_QUERY, 0},
                 {BG_ROLE_KEY, query},
                 {BG_ROLE_VALUE, query + key_value}};
    enum { N_PARTS = sizeof parts / sizeof *parts };
    for (size_t i = 0; i < N_PARTS; i++)
        if (layer[parts[i].role].weight)
            BG_TRY(bg_pass_layer(p, &layer[parts[i].role],
                                 (bg_linear){.in = in,
                                             .consumes = last && (i == 0 || i == N_PARTS - 1),
                                             .out = run->qkv,
                                             .out_col = parts[i].col}));
    const bg_attention args = {.qkv = run->qkv,
                               .key_col = query,
                               .value_col = query + key_value,
                               .n_heads = (size_t)c->num_attention_heads,
                               .n_kv_heads = (size_t)c->num_key_value_heads,
                               .head_dim = (size_t)c->head_dim,
                               .query_norm = norm_of(m, &layer[BG_ROLE_QUERY_NORM]),
                               .key_norm = norm_of(m, &layer[BG_ROLE_KEY_NORM]),
                               .rope = run->rope,
                               .scale = attention_scale(c, p->layer),
                               .position_bias = m->parameters[BG_ROLE_POSITION_BIAS].weight,
                               .causal = c->arch->causal,
                               .window =
                                   bg_config_slides(c, p->layer) ? (size_t)c->sliding_window : 0,
                               .cache = run->cache,
                               .layer = c->arch->causal ? p->layer : 0,
                               .sequences = p->sequences,
                               .n_sequences = p->n_sequences,
                               .out = run->attended};
    return m->backend->ops->attention(m->backend, &args, p->err);
}

/* Attention of `in` to the encoder's states, which bg_run_encode stored, to run->attended. */
static bg_status attend_to_source(const bg_pass *p, const bg_parameter *layer, const bg_act *in)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    for (size_t i = 0; i < p->n_sequences; i++) {
        const bg_sequence *s = &p->sequences[i];
        run->sources[i] = (bg_sequence){.first_row = s->first_row,
                                        .rows = s->rows,
                                        .slot = s->slot,
                                        .keys = run->source_keys[s->slot]};
    }
    BG_TRY(
        bg_pass_linear(p, &layer[BG_ROLE_CROSS_QUERY], in, BG_ACTIVATION_NONE, NULL, run->qkv, 0));
    const bg_attention args = {.qkv = run->qkv,
                               .n_heads = (size_t)c->num_attention_heads,
                               .n_kv_heads = (size_t)c->num_key_value_heads,
                               .head_dim = (size_t)c->head_dim,
                               .stored = true,
                               .scale = attention_scale(c, p->layer),
                               .cache = run->cross_cache,
                               .layer = p->layer,
                               .sequences = run->sources,
                               .n_sequences = p->n_sequences,
                               .out = run->attended};
    return m->backend->ops->attention(m->backend, &args, p->err);
}

/* activation(up(in)), or activation(gate(in)) * up(in), to run->inner; `last` as above. */
static bg_status widen(const bg_pass *p, const bg_parameter *layer, const bg_act *in, bool last)
{
    bg_run *run = p->run;
    const bool gated = layer[BG_ROLE_MLP_GATE].weight;
    const bg_activation activation = run->model->config.activation;
    BG_TRY(bg_pass_layer(p, &layer[BG_ROLE_MLP_UP],
                         (bg_linear){.in = in,
                                     .consumes = last && !gated,
                                     .activation = gated ? BG_ACTIVATION_NONE : activation,
                                     .out = run->inner}));
    if (!gated) return BG_OK;
    return bg_pass_layer(p, &layer[BG_ROLE_MLP_GATE],
                         (bg_linear){.in = in,
                                     .consumes = last,
                                     .activation = activation,
                                     .multiplier = run->inner,
                                     .out = run->inner});
}

/* x += attention(in) + mlp(in); the two are added first, as their authors do, which in 16 bits is
 * not the same. */
static bg_status parallel_block(const bg_pass *p, const bg_parameter *layer)
{
    bg_run *run = p->run;
    bg_act *x = run->hidden, *in = run->normed;
    BG_TRY(norm(p, &layer[BG_ROLE_ATTENTION_NORM], x, in));
    BG_TRY(attend(p, layer, in, false));
    BG_TRY(widen(p, layer, in, true));
    BG_TRY(add_last(p, &layer[BG_ROLE_ATTENTION_OUTPUT], run->attended, NULL, in));
    return bg_pass_layer(
        p, &layer[BG_ROLE_MLP_DOWN],
        (bg_linear){.in = run->inner, .consumes = true, .addend = in, .residual = x, .out = x});
}

/* Goes on with the rows that are wanted alone: nothing that follows reads another's. Not where
 * LLM.int8()'s outlier columns are those of all rows. */
static bg_status narrow(bg_pass *p)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    bg_act *const all = run->hidden;
    if (!p->wanted || bg_format_has_outliers(m->precision)) return BG_OK;
    BG_TRY(m->backend->ops->copy_rows(m->backend, all, p->wanted, run->normed, NULL, p->n_wanted, 1,
                                      p->err));
    run->hidden = run->normed;
    run->normed = all;
    p->n_rows = p->n_wanted;
    p->sequences = NULL;
    p->n_sequences = 0;
    p->wanted = NULL;
    return BG_OK;
}

static bg_status block(bg_pass *p)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    const bg_parameter *layer = m->layers[p->layer];
    const bool after = m->config.block == BG_BLOCK_POST_NORM;
    bg_act *x = run->hidden, *in = after ? x : run->normed;
    if (m->config.block == BG_BLOCK_PARALLEL) return parallel_block(p, layer);

    if (!after) BG_TRY(norm(p, &layer[BG_ROLE_ATTENTION_NORM], x, in));
    BG_TRY(attend(p, layer, in, !after));
    BG_TRY(add_last(p, &layer[BG_ROLE_ATTENTION_OUTPUT], run->attended, x, x));
    if (after) BG_TRY(norm(p, &layer[BG_ROLE_ATTENTION_NORM], x, x));

    if (layer[BG_ROLE_CROSS_QUERY].weight) {
        BG_TRY(norm(p, &layer[BG_ROLE_CROSS_NORM], x, in));
        BG_TRY(attend_to_source(p, layer, in));
        BG_TRY(add_last(p, &layer[BG_ROLE_CROSS_OUTPUT], run->attended, x, x));
    }

    if (p->layer + 1 == (size_t)m->config.num_hidden_layers) BG_TRY(narrow(p));
    x = run->hidden;
    in = after ? x : run->normed;
    if (!after) BG_TRY(norm(p, &layer[BG_ROLE_MLP_NORM], x, in));
    BG_TRY(widen(p, layer, in, !after));
    BG_TRY(add_last(p, &layer[BG_ROLE_MLP_DOWN], run->inner, x, x));
    if (after) BG_TRY(norm(p, &layer[BG_ROLE_MLP_NORM], x, x));
    return BG_OK;
}

/* Every block on what is in run->hidden, and the last norm. It is not done in place: blocks of a
 * GPU that each norm what they multiply, as the head's do, must all find it. */
static bg_status blocks(bg_pass *p)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    if (m->parameters[BG_ROLE_EMBEDDING_NORM].weight)
        BG_TRY(norm(p, &m->parameters[BG_ROLE_EMBEDDING_NORM], run->hidden, run->hidden));
    for (; p->layer < (size_t)m->config.num_hidden_layers; p->layer++) BG_TRY(block(p));
    run->last = run->hidden;
    if (!m->parameters[BG_ROLE_FINAL_NORM].weight) return BG_OK;
    run->last = run->normed;
    return norm(p, &m->parameters[BG_ROLE_FINAL_NORM], run->hidden, run->normed);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* Checks the batch, fills run->positions; *n_rows is its size. */
static bg_status prepare(bg_run *run, const bg_sequence *sequences, size_t n_sequences,
                         size_t *n_rows, bg_error *err)
{
    const bg_config *c = &run->model->config;
    size_t rows = 0;
    if (n_sequences > run->n_slots)
        return bg_fail(err, BG_ERR_INTERNAL, "forward: %zu sequences for %zu slots", n_sequences,
                       run->n_slots);
    for (size_t i = 0; i < n_sequences; i++) {
        const bg_sequence *s = &sequences[i];
        if (s->first_row != rows || s->rows == 0 || s->rows > run->max_rows - rows ||
            s->slot >= run->n_slots)
            return bg_fail(err, BG_ERR_INTERNAL, "forward: the batch is not laid out as it must");
        if (s->past + s->rows > (size_t)c->max_position_embeddings)
            return bg_fail(err, BG_ERR_USAGE,
                           "%zu tokens are more than the %lld positions of this model; use shorter "
                           "texts",
                           s->past + s->rows, (long long)c->max_position_embeddings);
        for (size_t k = 0; k < s->rows; k++)
            run->positions[rows + k] = (int32_t)(s->past + k + (size_t)c->position_offset);
        rows += s->rows;
    }
    *n_rows = rows;
    return BG_OK;
}

/* run->ids: the tokens, but for image tokens, which stand for an image's features as long as there
 * are some. One that the model writes itself is a token as any other, if it has an embedding. */
static bg_status check_ids(bg_run *run, const int32_t *ids, size_t n, size_t *n_images,
                           bg_error *err)
{
    const bg_config *c = &run->model->config;
    *n_images = 0;
    if (!ids) {
        if (run->n_choices == 0 || n != run->n_chosen)
            return bg_fail(err, BG_ERR_INTERNAL, "forward: %zu tokens that were not chosen", n);
        return BG_OK;
    }
    run->n_choices = 0;
    for (size_t i = 0; i < n; i++) {
        run->ids[i] = ids[i];
        if (ids[i] == c->image_token_id && *n_images < run->n_features) {
            run->ids[i] = 0;
            run->feature_rows[(*n_images)++] = i;
        } else if (ids[i] < 0 || ids[i] >= c->vocab_size) {
            return bg_fail(err, BG_ERR_FORMAT,
                           "token id %d is outside the model's vocabulary of %lld; tokenizer and "
                           "model do not belong together, download both again",
                           ids[i], (long long)c->vocab_size);
        }
    }
    if (*n_images > 0 && *n_images < run->n_features)
        return bg_fail(err, BG_ERR_INTERNAL, "forward: an image of %zu patches has %zu tokens",
                       run->n_features, *n_images);
    return BG_OK;
}

/* The sum of the embeddings of each token, its position and its type, to run->hidden. Tokens are
 * in run->ids, or those chosen last. */
static bg_status embed(const bg_pass *p)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    const bg_parameter *parameters = m->parameters;
    const bg_parameter *in = &parameters[BG_ROLE_PROJECT_IN];
    const bg_lookup tokens = {.table = parameters[BG_ROLE_TOKEN_EMBEDDING].weight,
                              .ids = run->n_choices > 0 ? NULL : run->ids,
                              .chosen = run->chosen[(run->n_choices + 1) % 2],
                              .scale = (float)m->config.embedding_scale};
    const bg_lookup others[] = {
        {parameters[BG_ROLE_POSITION_EMBEDDING].weight, run->positions, NULL, 1},
        {parameters[BG_ROLE_TYPE_EMBEDDING].weight, run->zeros, NULL, 1}};
    bg_lookup lookups[3];
    size_t n = 0;
    if (!in->weight) lookups[n++] = tokens;
    for (size_t i = 0; i < 2; i++)
        if (others[i].table) lookups[n++] = others[i];
    BG_TRY(m->backend->ops->embed(m->backend, lookups, n, p->n_rows, run->hidden, p->err));
    if (!in->weight) return BG_OK;
    BG_TRY(m->backend->ops->embed(m->backend, &tokens, 1, p->n_rows, run->embedded, p->err));
    return bg_pass_linear(p, in, run->embedded, BG_ACTIVATION_NONE, run->hidden, run->hidden, 0);
}

/* `p` with run and sequences, and rows that are wanted, if not all. */
static bg_status forward(bg_pass *p, const int32_t *ids)
{
    bg_run *run = p->run;
    bg_backend *backend = run->model->backend;
    size_t n_images;
    BG_TRY(prepare(run, p->sequences, p->n_sequences, &p->n_rows, p->err));
    BG_TRY(check_ids(run, ids, p->n_rows, &n_images, p->err));
    BG_TRY(embed(p));
    if (n_images > 0)
        BG_TRY(backend->ops->copy_rows(backend, run->encoder->features, NULL, run->hidden,
                                       run->feature_rows, n_images, 1, p->err));
    run->n_features -= n_images;
    return blocks(p);
}

bg_status bg_run_forward(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                         size_t n_sequences, bg_error *err)
{
    bg_pass p = {.run = run, .sequences = sequences, .n_sequences = n_sequences, .err = err};
    return forward(&p, ids);
}

bg_status bg_run_forward_to(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                            size_t n_sequences, const size_t *rows, size_t n, bg_error *err)
{
    bg_act *const hidden = run->hidden, *const normed = run->normed;
    bg_pass p = {.run = run,
                 .sequences = sequences,
                 .n_sequences = n_sequences,
                 .wanted = rows,
                 .n_wanted = n,
                 .err = err};
    const size_t most = bg_min_size(run->max_selected, run->max_rows);
    if (n > most)
        return bg_fail(err, BG_ERR_INTERNAL, "forward: %zu rows wanted of at most %zu", n, most);
    const bg_status status = forward(&p, ids);
    /* Where they were, for the next pass to be the same list of operations. */
    run->hidden = hidden;
    run->normed = normed;
    BG_TRY(status);
    return bg_run_select(run, p.wanted, n, err);
}

/* ---- what an encoder reads ------------------------------------------------------------------- */

bg_status bg_run_encode(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                        size_t n_sequences, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    if (!c->arch->cross_attention)
        return bg_fail(err, BG_ERR_INTERNAL, "encode: %s has no encoder", c->architecture);
    BG_TRY(bg_run_forward(run->encoder, ids, sequences, n_sequences, err));
    const size_t key_value = (size_t)(c->num_key_value_heads * c->head_dim);
    bg_pass p = {.run = run, .sequences = sequences, .n_sequences = n_sequences, .err = err};
    for (size_t i = 0; i < n_sequences; i++) p.n_rows += sequences[i].rows;
    for (size_t layer = 0; layer < (size_t)c->num_hidden_layers; layer++) {
        const bg_parameter *parameters = m->layers[layer];
        BG_TRY(bg_pass_linear(&p, &parameters[BG_ROLE_CROSS_KEY], run->encoder->last,
                              BG_ACTIVATION_NONE, NULL, run->cross_kv, 0));
        BG_TRY(bg_pass_linear(&p, &parameters[BG_ROLE_CROSS_VALUE], run->encoder->last,
                              BG_ACTIVATION_NONE, NULL, run->cross_kv, key_value));
        BG_TRY(m->backend->ops->store(m->backend, run->cross_cache, layer, run->cross_kv, 0,
                                      key_value, sequences, n_sequences, err));
    }
    for (size_t i = 0; i < n_sequences; i++)
        run->source_keys[sequences[i].slot] = sequences[i].keys;
    return BG_OK;
}

/* Row r of `rows` is patch r of the images, in reading order: its values channel by channel, as the
 * weights of the convolution lie. */
static void cut_patches(const bg_config *c, const float *pixels, size_t n, float *rows)
{
    const size_t size = (size_t)c->image_size, patch = (size_t)c->patch_size, side = size / patch;
    for (size_t image = 0; image < n; image++)
        for (size_t row = 0; row < side; row++)
            for (size_t col = 0; col < side; col++)
                for (size_t channel = 0; channel < (size_t)c->num_channels; channel++)
                    for (size_t y = 0; y < patch; y++, rows += patch) {
                        const size_t plane = image * (size_t)c->num_channels + channel;
                        const size_t line = plane * size + row * patch + y;
                        memcpy(rows, pixels + line * size + col * patch, patch * sizeof *rows);
                    }
}

/* Patches and their positions to states of the vision tower, projected to run->features. */
static bg_status look(bg_run *run, const float *pixels, size_t n, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_parameter *parameters = m->parameters;
    const size_t patches = bg_config_patches(&m->config);
    bg_sequence *sequences = bg_calloc(n, sizeof *sequences);
    if (!sequences) return bg_fail_memory(err, n * sizeof *sequences, "an image");
    for (size_t i = 0; i < n; i++)
        sequences[i] =
            (bg_sequence){.first_row = i * patches, .rows = patches, .slot = i, .keys = patches};
    bg_pass p = {.run = run, .sequences = sequences, .n_sequences = n, .err = err};
    cut_patches(&m->config, pixels, n, run->patches);
    const bg_lookup positions = {parameters[BG_ROLE_POSITION_EMBEDDING].weight, run->positions,
                                 NULL, 1};
    bg_status status = prepare(run, sequences, n, &p.n_rows, err);
    if (status == BG_OK)
        status = m->backend->ops->embed(m->backend, &positions, 1, p.n_rows, run->hidden, err);
    if (status == BG_OK)
        status = m->backend->ops->act_write(m->backend, run->embedded, p.n_rows, run->patches, err);
    if (status == BG_OK)
        status = bg_pass_linear(&p, &parameters[BG_ROLE_PATCH_EMBEDDING], run->embedded,
                                BG_ACTIVATION_NONE, run->hidden, run->hidden, 0);
    if (status == BG_OK) status = blocks(&p);
    if (status == BG_OK)
        status = bg_pass_linear(&p, &parameters[BG_ROLE_PROJECTOR], run->last, BG_ACTIVATION_NONE,
                                NULL, run->features, 0);
    bg_free(sequences);
    return status;
}

bg_status bg_run_look(bg_run *run, const float *pixels, size_t n, bg_error *err)
{
    const bg_model *m = run->model;
    if (!m->encoder || m->config.arch->cross_attention)
        return bg_fail(err, BG_ERR_UNSUPPORTED, "%s does not look at images; leave them out",
                       m->config.architecture);
    const size_t patches = bg_config_patches(&m->encoder->config);
    if (n > run->n_slots)
        return bg_fail(err, BG_ERR_INTERNAL, "look: %zu images for %zu slots", n, run->n_slots);
    if (!run->encoder)
        BG_TRY(bg_run_create(m->encoder, run->n_slots * patches, run->n_slots, patches, 1,
                             &run->encoder, err));
    run->encoder->apart = run->apart;
    BG_TRY(look(run->encoder, pixels, n, err));
    run->n_features = n * patches;
    return BG_OK;
}
