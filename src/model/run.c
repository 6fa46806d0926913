/* What a forward pass works on, and what is asked of its last states. */
#include "core/alloc.h"
#include "core/checked.h"
#include "model/model.h"
#include "model/pass.h"
#include "quant/half.h"

#include <string.h>

/* One thing a run may hold: made only where it is wanted. */
typedef struct {
    bg_act **act;
    bool wanted;
    size_t rows, cols;
} room;

static bg_status create_acts(bg_run *run, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    const size_t hidden = (size_t)c->hidden_size, rows = run->max_rows;
    const size_t attended = (size_t)(c->num_attention_heads * c->head_dim);
    const size_t key_value = (size_t)(c->num_key_value_heads * c->head_dim);
    const bool patches = c->arch->tensors[BG_ROLE_PATCH_EMBEDDING].name;
    const bool projected = c->holds[BG_IF_PROJECTED], half = m->half;
    const size_t patch = (size_t)(c->num_channels * c->patch_size * c->patch_size);
    const room rooms[] = {
        {&run->embedded, patches || projected, rows, patches ? patch : (size_t)c->embedding_size},
        {&run->hidden, true, rows, hidden},
        {&run->normed, true, rows, hidden},
        {&run->qkv, true, rows, attended + 2 * key_value},
        {&run->attended, true, rows, attended},
        {&run->inner, true, rows, (size_t)c->intermediate_size},
        {&run->gathered, projected, run->max_selected, hidden},
        {&run->selected, true, run->max_selected, (size_t)c->embedding_size},
        {&run->labels, c->arch->task == BG_TASK_CLASSIFIER, run->max_selected,
         (size_t)c->num_labels},
        {&run->cross_kv, c->arch->cross_attention, rows, 2 * key_value},
        {&run->features, c->arch->tensors[BG_ROLE_PROJECTOR].name, rows, (size_t)c->projection_dim},
    };
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (rooms[i].wanted)
            BG_TRY(m->backend->ops->act_create(m->backend, rooms[i].rows, rooms[i].cols, half,
                                               rooms[i].act, err));
    return BG_OK;
}

static bg_status create_arrays(bg_run *run, bg_error *err)
{
    const size_t n = run->max_rows;
    run->ids = bg_alloc_array(n, sizeof *run->ids);
    run->positions = bg_alloc_array(n, sizeof *run->positions);
    run->zeros = bg_calloc(n, sizeof *run->zeros);
    run->feature_rows = bg_alloc_array(n, sizeof *run->feature_rows);
    run->source_keys = bg_calloc(run->n_slots, sizeof *run->source_keys);
    run->sources = bg_calloc(run->n_slots, sizeof *run->sources);
    const bool patches = run->model->config.arch->tensors[BG_ROLE_PATCH_EMBEDDING].name;
    if (patches) run->patches = bg_alloc_array(n, run->embedded->cols * sizeof(float));
    if (!run->ids || !run->positions || !run->zeros || !run->feature_rows || !run->source_keys ||
        !run->sources || (patches && !run->patches))
        return bg_fail_memory(err, 16 * n, "a run");
    return BG_OK;
}

static bg_status create_ids(bg_run *run, bg_error *err)
{
    bg_backend *backend = run->model->backend;
    for (size_t i = 0; i < 2; i++)
        BG_TRY(backend->ops->ids_create(backend, run->max_selected, &run->chosen[i], err));
    return BG_OK;
}

static bg_status create_caches(bg_run *run, size_t max_length, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    const size_t layers = (size_t)c->num_hidden_layers;
    const size_t heads = (size_t)c->num_key_value_heads, d = (size_t)c->head_dim;
    /* An encoder looks back at nothing: its layers share one layer of cache. */
    BG_TRY(m->backend->ops->cache_create(m->backend, c->arch->causal ? layers : 1, run->n_slots,
                                         max_length, heads, d, &run->cache, err));
    if (!c->arch->cross_attention) return BG_OK;
    return m->backend->ops->cache_create(m->backend, layers, run->n_slots, max_length, heads, d,
                                         &run->cross_cache, err);
}

static bg_status create_rope(bg_run *run, size_t max_length, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_config *c = &m->config;
    const size_t dim = (size_t)c->rope.dim;
    size_t count;
    if (!c->arch->rotary) return BG_OK;
    float *table =
        bg_mul_size(max_length, dim, &count) ? bg_alloc_array(count, sizeof *table) : NULL;
    if (!table) return bg_fail_memory(err, max_length * dim * sizeof *table, "rotary positions");
    bg_status status = bg_rope_table(&c->rope, (size_t)c->position_offset, max_length, table, err);
    /* In a 16-bit model these, too, are 16-bit. */
    if (status == BG_OK && m->half)
        for (size_t i = 0; i < count; i++) table[i] = bg_f16_to_f32(bg_f32_to_f16(table[i]));
    const bg_source source = {"rotary positions", BG_F32, table, max_length, dim, false};
    if (status == BG_OK)
        status =
            m->backend->ops->weight_create(m->backend, &source, BG_FORMAT_F32, &run->rope, err);
    bg_free(table);
    return status;
}

bg_status bg_run_create(const bg_model *model, size_t max_rows, size_t n_slots, size_t max_length,
                        size_t max_selected, bg_run **out, bg_error *err)
{
    *out = NULL;
    bg_run *run = bg_calloc(1, sizeof *run);
    if (!run) return bg_fail_memory(err, sizeof *run, "a run");
    *run = (bg_run){
        .model = model, .max_rows = max_rows, .n_slots = n_slots, .max_selected = max_selected};
    bg_status status = create_acts(run, err);
    if (status == BG_OK) status = create_arrays(run, err);
    if (status == BG_OK) status = create_ids(run, err);
    if (status == BG_OK) status = create_caches(run, max_length, err);
    if (status == BG_OK) status = create_rope(run, max_length, err);
    if (status == BG_OK && model->config.arch->cross_attention)
        status =
            bg_run_create(model->encoder, max_rows, n_slots, max_length, 1, &run->encoder, err);
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
    bg_run_free(run->encoder);
    bg_act *const acts[] = {run->embedded, run->hidden,   run->normed,   run->qkv,
                            run->attended, run->inner,    run->gathered, run->selected,
                            run->labels,   run->cross_kv, run->features};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        backend->ops->act_free(backend, acts[i]);
    for (size_t i = 0; i < 2; i++) backend->ops->ids_free(backend, run->chosen[i]);
    backend->ops->cache_free(backend, run->cache);
    backend->ops->cache_free(backend, run->cross_cache);
    backend->ops->weight_free(backend, run->rope);
    void *const arrays[] = {run->ids,         run->positions, run->zeros,  run->feature_rows,
                            run->source_keys, run->sources,   run->patches};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) bg_free(arrays[i]);
    bg_free(run);
}

void bg_run_separate(bg_run *run)
{
    run->apart = true;
    if (run->encoder) run->encoder->apart = true;
}

bool bg_model_separates(const bg_model *model)
{
    return !bg_format_has_outliers(model->precision) ||
           !model->parameters[BG_ROLE_PROJECT_OUT].weight;
}

/* ---- the last states ------------------------------------------------------------------------- */

/* Whether rows are the first ones, in their order; NULL: they are. */
static bool are_first(const size_t *rows, size_t n)
{
    for (size_t i = 0; rows && i < n; i++)
        if (rows[i] != i) return false;
    return true;
}

bg_status bg_run_select(bg_run *run, const size_t *rows, size_t n, bg_error *err)
{
    const bg_model *m = run->model;
    bg_backend *backend = m->backend;
    const bg_parameter *out = &m->parameters[BG_ROLE_PROJECT_OUT];
    const float scale = (float)m->config.head_scale;
    if (n > run->max_selected)
        return bg_fail(err, BG_ERR_INTERNAL, "forward: %zu rows selected of at most %zu", n,
                       run->max_selected);
    run->head_in = run->last;
    if (scale != 1 || !are_first(rows, n)) {
        bg_act *to = out->weight ? run->gathered : run->selected;
        BG_TRY(backend->ops->copy_rows(backend, run->last, rows, to, NULL, n, scale, err));
        run->head_in = to;
    }
    if (!out->weight) return BG_OK;
    const bg_pass p = {.run = run, .n_rows = n, .err = err};
    const bg_act *in = run->head_in;
    run->head_in = run->selected;
    return bg_pass_linear(&p, out, in, BG_ACTIVATION_NONE, NULL, run->selected, 0);
}

bg_status bg_run_logits(bg_run *run, size_t n, float *logits, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_parameter *head = bg_model_head(m);
    return m->backend->ops->logits(m->backend, head->weight, head->bias, run->head_in, n, logits,
                                   err);
}

bg_status bg_run_score(bg_run *run, size_t n, const int32_t *targets, double *nll, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_parameter *head = bg_model_head(m);
    return m->backend->ops->score(m->backend, head->weight, head->bias, run->head_in, n, targets,
                                  nll, err);
}

bg_status bg_run_choose(bg_run *run, size_t n, const bg_choice *how, bg_error *err)
{
    const bg_model *m = run->model;
    const bg_parameter *head = bg_model_head(m);
    BG_TRY(m->backend->ops->choose(m->backend, head->weight, head->bias, run->head_in, n, how,
                                   run->chosen[run->n_choices % 2], err));
    run->n_chosen = n;
    run->n_choices++;
    return BG_OK;
}

bg_status bg_run_chosen(bg_run *run, size_t ago, size_t n, int32_t *ids, bg_error *err)
{
    bg_backend *backend = run->model->backend;
    if (ago > 1 || ago >= run->n_choices || n > run->n_chosen)
        return bg_fail(err, BG_ERR_INTERNAL, "%zu tokens that were not chosen", n);
    return backend->ops->ids_read(backend, run->chosen[(run->n_choices - 1 - ago) % 2], n, ids,
                                  err);
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
    const bg_pass p = {.run = run, .n_rows = n_sequences, .err = err};
    const bg_parameter *pre = &m->parameters[BG_ROLE_PRE_CLASSIFIER];
    bg_act *to = run->last == run->normed ? run->hidden : run->normed;
    BG_TRY(bg_pass_linear(&p, pre, run->head_in, m->config.arch->pre_classifier, NULL, to, 0));
    BG_TRY(bg_pass_linear(&p, &m->parameters[BG_ROLE_CLASSIFIER], to, BG_ACTIVATION_NONE, NULL,
                          run->labels, 0));
    return backend->ops->act_read(backend, run->labels, n_sequences, logits, err);
}
