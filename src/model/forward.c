/* The forward pass: one for every architecture, led by its table. */
#include "core/alloc.h"
#include "core/checked.h"
#include "model/model.h"

#include <math.h>

static bg_status create_acts(bg_run *run, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    const size_t hidden = (size_t)c->hidden_size;
    const size_t attended = (size_t)(c->num_attention_heads * c->head_dim);
    const size_t key_value = (size_t)(c->num_key_value_heads * c->head_dim);
    const struct {
        bg_act **act;
        size_t rows, cols;
    } wanted[] = {
        {&run->hidden, run->max_rows, hidden},
        {&run->normed, run->max_rows, hidden},
        {&run->qkv, run->max_rows, attended + 2 * key_value},
        {&run->attended, run->max_rows, attended},
        {&run->inner, run->max_rows, (size_t)c->intermediate_size},
        {&run->selected, run->max_selected, hidden},
        {&run->labels, run->max_selected, (size_t)c->num_labels},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        BG_TRY(m->backend->ops->act_create(m->backend, wanted[i].rows, wanted[i].cols,
                                           m->precision == BG_FORMAT_INT8, wanted[i].act, err));
    return BG_OK;
}

bg_status bg_run_create(const bg_model *model, size_t max_rows, size_t n_slots, size_t max_length,
                        size_t max_selected, bg_run **out, bg_error *err)
{
    const bg_config *c = &model->config;
    *out = NULL;
    bg_run *run = bg_calloc(1, sizeof *run);
    if (!run) return bg_fail_memory(err, sizeof *run, "a run");
    run->model = model;
    run->max_rows = max_rows;
    run->max_selected = max_selected;
    run->positions = bg_alloc_array(max_rows, sizeof *run->positions);
    bg_status status = BG_OK;
    if (!run->positions) status = bg_fail_memory(err, 4 * max_rows, "positions");
    if (status == BG_OK) status = create_acts(run, err);
    /* An encoder looks back at nothing: its layers share one layer of cache. */
    size_t layers = c->arch->causal ? (size_t)c->num_hidden_layers : 1;
    if (status == BG_OK)
        status = model->backend->ops->cache_create(model->backend, layers, n_slots, max_length,
                                                   (size_t)c->num_key_value_heads,
                                                   (size_t)c->head_dim, &run->cache, err);
    if (status != BG_OK) {
        bg_run_free(run);
        return status;
    }
    *out = run;
    return BG_OK;
}

void bg_run_free(bg_run *run)
{
    if (!run) return;
    bg_backend *backend = run->model->backend;
    bg_act *const acts[] = {run->hidden, run->normed,   run->qkv,   run->attended,
                            run->inner,  run->selected, run->labels};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        backend->ops->act_free(backend, acts[i]);
    backend->ops->cache_free(backend, run->cache);
    bg_free(run->positions);
    bg_free(run);
}

/* ---- one block ------------------------------------------------------------------------------- */

typedef struct {
    bg_run *run;
    size_t n_rows;
    const bg_sequence *sequences;
    size_t n_sequences;
    size_t layer;
    bg_error *err;
} pass;

static bg_status norm(const pass *p, const bg_parameter *parameter, const bg_act *in, bg_act *out)
{
    const bg_model *m = p->run->model;
    return m->backend->ops->norm(m->backend, m->config.arch->norm, parameter->weight,
                                 parameter->bias, (float)m->config.norm_eps, in, p->n_rows, out,
                                 p->err);
}

static bg_status linear(const pass *p, const bg_parameter *parameter, const bg_act *in,
                        bg_activation activation, const bg_act *residual, bg_act *out,
                        size_t out_col)
{
    const bg_model *m = p->run->model;
    const bg_linear args = {.weight = parameter->weight,
                            .bias = parameter->bias,
                            .in = in,
                            .n_rows = p->n_rows,
                            .activation = activation,
                            .residual = residual,
                            .out = out,
                            .out_col = out_col};
    return m->backend->ops->linear(m->backend, &args, p->err);
}

static float attention_scale(const bg_config *c, size_t layer)
{
    double scale = c->scale_attention ? 1 / sqrt((double)c->head_dim) : 1;
    if (c->scale_attention_by_layer) scale /= (double)(layer + 1);
    return (float)scale;
}

/* Queries, keys and values of `in`, and attention over them, to run->attended. */
static bg_status attend(const pass *p, const bg_parameter *layer, const bg_act *in)
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
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (layer[parts[i].role].weight)
            BG_TRY(linear(p, &layer[parts[i].role], in, BG_ACTIVATION_NONE, NULL, run->qkv,
                          parts[i].col));
    const bg_attention args = {.qkv = run->qkv,
                               .key_col = query,
                               .value_col = query + key_value,
                               .n_heads = (size_t)c->num_attention_heads,
                               .n_kv_heads = (size_t)c->num_key_value_heads,
                               .head_dim = (size_t)c->head_dim,
                               .scale = attention_scale(c, p->layer),
                               .causal = c->arch->causal,
                               .cache = run->cache,
                               .layer = c->arch->causal ? p->layer : 0,
                               .sequences = p->sequences,
                               .n_sequences = p->n_sequences,
                               .out = run->attended};
    return m->backend->ops->attention(m->backend, &args, p->err);
}

/* x += attention(norm(x)); x += mlp(norm(x)), or with the norms last: x = norm(x + attention(x)),
 * x = norm(x + mlp(x)). */
static bg_status block(const pass *p)
{
    bg_run *run = p->run;
    const bg_model *m = run->model;
    const bg_parameter *layer = m->layers[p->layer];
    const bool first = m->config.arch->norm_first;
    bg_act *x = run->hidden, *in = first ? run->normed : x;

    if (first) BG_TRY(norm(p, &layer[BG_ROLE_ATTENTION_NORM], x, in));
    BG_TRY(attend(p, layer, in));
    BG_TRY(linear(p, &layer[BG_ROLE_ATTENTION_OUTPUT], run->attended, BG_ACTIVATION_NONE, x, x, 0));
    if (!first) BG_TRY(norm(p, &layer[BG_ROLE_ATTENTION_NORM], x, x));

    if (first) BG_TRY(norm(p, &layer[BG_ROLE_MLP_NORM], x, in));
    BG_TRY(linear(p, &layer[BG_ROLE_MLP_UP], in, m->config.activation, NULL, run->inner, 0));
    BG_TRY(linear(p, &layer[BG_ROLE_MLP_DOWN], run->inner, BG_ACTIVATION_NONE, x, x, 0));
    if (!first) BG_TRY(norm(p, &layer[BG_ROLE_MLP_NORM], x, x));
    return BG_OK;
}

/* ---- the whole pass -------------------------------------------------------------------------- */

/* Checks the batch, fills run->positions; *n_rows is its size. */
static bg_status prepare(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                         size_t n_sequences, size_t *n_rows, bg_error *err)
{
    const bg_config *c = &run->model->config;
    size_t rows = 0;
    for (size_t i = 0; i < n_sequences; i++) {
        const bg_sequence *s = &sequences[i];
        size_t end = s->past + s->rows;
        if (s->first_row != rows || s->rows == 0 || s->rows > run->max_rows - rows ||
            s->slot >= run->cache->n_slots || s->keys == 0)
            return bg_fail(err, BG_ERR_INTERNAL, "forward: sequence %zu does not fit the run", i);
        if (end > (size_t)c->max_position_embeddings)
            return bg_fail(err, BG_ERR_USAGE,
                           "a sequence of %zu tokens is longer than the %lld positions of this "
                           "model; use a shorter prompt or text, or fewer new tokens",
                           end, (long long)c->max_position_embeddings);
        for (size_t k = 0; k < s->rows; k++)
            run->positions[rows + k] = (int32_t)(s->past + k) + c->arch->position_offset;
        rows += s->rows;
    }
    for (size_t i = 0; i < rows; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab_size)
            return bg_fail(err, BG_ERR_FORMAT,
                           "token id %d is outside the model's vocabulary of %lld; tokenizer and "
                           "model do not belong together, download both again",
                           ids[i], (long long)c->vocab_size);
    *n_rows = rows;
    return BG_OK;
}

bg_status bg_run_forward(bg_run *run, const int32_t *ids, const bg_sequence *sequences,
                         size_t n_sequences, bg_error *err)
{
    const bg_model *m = run->model;
    pass p = {run, 0, sequences, n_sequences, 0, err};
    BG_TRY(prepare(run, ids, sequences, n_sequences, &p.n_rows, err));
    bg_lookup lookups[2] = {{m->parameters[BG_ROLE_TOKEN_EMBEDDING].weight, ids},
                            {m->parameters[BG_ROLE_POSITION_EMBEDDING].weight, run->positions}};
    BG_TRY(m->backend->ops->embed(m->backend, lookups, lookups[1].table ? 2 : 1, p.n_rows,
                                  run->hidden, err));
    if (m->parameters[BG_ROLE_EMBEDDING_NORM].weight)
        BG_TRY(norm(&p, &m->parameters[BG_ROLE_EMBEDDING_NORM], run->hidden, run->hidden));
    for (; p.layer < (size_t)m->config.num_hidden_layers; p.layer++) BG_TRY(block(&p));
    if (m->parameters[BG_ROLE_FINAL_NORM].weight)
        BG_TRY(norm(&p, &m->parameters[BG_ROLE_FINAL_NORM], run->hidden, run->hidden));
    return BG_OK;
}

bg_status bg_run_select(bg_run *run, const size_t *rows, size_t n, bg_error *err)
{
    if (n > run->max_selected)
        return bg_fail(err, BG_ERR_INTERNAL, "forward: %zu rows selected of at most %zu", n,
                       run->max_selected);
    bg_backend *backend = run->model->backend;
    return backend->ops->gather(backend, run->hidden, rows, n, run->selected, err);
}

/* The output head: a matrix of its own, or the token embedding. */
static const bg_parameter *head(const bg_model *model)
{
    const bg_parameter *own = &model->parameters[BG_ROLE_HEAD];
    return own->weight ? own : &model->parameters[BG_ROLE_TOKEN_EMBEDDING];
}

bg_status bg_run_logits(bg_run *run, size_t n, float *logits, bg_error *err)
{
    const bg_model *m = run->model;
    return m->backend->ops->logits(m->backend, head(m)->weight, head(m)->bias, run->selected, n,
                                   logits, err);
}

bg_status bg_run_argmax(bg_run *run, size_t n, int32_t *ids, bg_error *err)
{
    const bg_model *m = run->model;
    return m->backend->ops->argmax(m->backend, head(m)->weight, head(m)->bias, run->selected, n,
                                   ids, err);
}

bg_status bg_run_score(bg_run *run, size_t n, const int32_t *targets, double *nll, bg_error *err)
{
    const bg_model *m = run->model;
    return m->backend->ops->score(m->backend, head(m)->weight, head(m)->bias, run->selected, n,
                                  targets, nll, err);
}

bg_status bg_run_classify(bg_run *run, const bg_sequence *sequences, size_t n_sequences,
                          float *logits, bg_error *err)
{
    const bg_model *m = run->model;
    bg_backend *backend = m->backend;
    size_t *rows = bg_alloc_array(n_sequences, sizeof *rows);
    if (!rows) return bg_fail_memory(err, n_sequences * sizeof *rows, "a batch");
    for (size_t i = 0; i < n_sequences; i++) rows[i] = sequences[i].first_row;
    bg_status status = bg_run_select(run, rows, n_sequences, err);
    bg_free(rows);
    if (status != BG_OK) return status;
    pass p = {.run = run, .n_rows = n_sequences, .err = err};
    const bg_parameter *pre = &m->parameters[BG_ROLE_PRE_CLASSIFIER];
    bg_act *state = run->selected;
    if (pre->weight) {
        BG_TRY(linear(&p, pre, state, BG_ACTIVATION_RELU, NULL, run->normed, 0));
        state = run->normed;
    }
    BG_TRY(linear(&p, &m->parameters[BG_ROLE_CLASSIFIER], state, BG_ACTIVATION_NONE, NULL,
                  run->labels, 0));
    return backend->ops->act_read(backend, run->labels, n_sequences, logits, err);
}
