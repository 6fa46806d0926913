/* The output head: logits, the tokens that they choose, and log-likelihoods, in chunks of rows so
 * that the logits of a whole text are never in memory at once. */
#include "backend/choice.h"
#include "backend/cpu/cpu.h"
#include "core/checked.h"

#include <string.h>

/* Rows of logits at a time. */
enum { CHUNK = 64 };

typedef struct {
    cpu_backend *cpu;
    float *logits;
    size_t cols;
    const int32_t *targets;
    double *nll;
    const bg_choice *how;
    const double *uniform;
    int32_t *ids;
} reduce_loop;

/* Calls `body` over the logits of each chunk; context's arrays are moved along. */
static bg_status chunks(cpu_backend *cpu, const bg_weight *head, const bg_weight *bias,
                        const bg_act *in, size_t n_rows, bg_loop_body body, reduce_loop *loop,
                        float *out, bg_error *err)
{
    if (!cpu->logits || cpu->logits->base.cols < head->rows ||
        cpu->logits->base.rows < bg_min_size(CHUNK, n_rows)) {
        if (cpu->logits) cpu->base.ops->act_free(&cpu->base, &cpu->logits->base);
        cpu->logits = NULL;
        bg_act *act;
        BG_TRY(
            cpu_act_create(&cpu->base, bg_min_size(CHUNK, n_rows), head->rows, false, &act, err));
        cpu->logits = (cpu_act *)act;
    }
    for (size_t first = 0; first < n_rows; first += CHUNK) {
        size_t n = bg_min_size(CHUNK, n_rows - first);
        cpu_act rows = {{n, in->cols, in->half}, cpu_values(in) + first * in->cols};
        cpu_act logits = {{n, head->rows, false},
                          out ? out + first * head->rows : cpu->logits->values};
        bg_linear args = {
            .weight = head, .bias = bias, .in = &rows.base, .n_rows = n, .out = &logits.base};
        BG_TRY(cpu_linear(&cpu->base, &args, err));
        if (!body) continue;
        loop->cpu = cpu;
        loop->logits = logits.values;
        loop->cols = head->rows;
        bg_parallel_for(cpu->threads, n, 1, body, loop);
        if (loop->targets) loop->targets += n;
        if (loop->nll) loop->nll += n;
        if (loop->ids) loop->ids += n;
        if (loop->uniform) loop->uniform += n;
    }
    return BG_OK;
}

bg_status cpu_logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, float *logits, bg_error *err)
{
    return chunks((cpu_backend *)backend, head, bias, in, n_rows, NULL, NULL, logits, err);
}

static void choose_rows(void *context, size_t begin, size_t end, int thread)
{
    const reduce_loop *a = context;
    bg_candidate *scratch = (bg_candidate *)(void *)a->cpu->own[thread].data;
    for (size_t i = begin; i < end; i++)
        a->ids[i] = bg_choose(a->logits + i * a->cols, a->cols, a->how,
                              a->uniform ? a->uniform[i] : 0, scratch);
}

bg_status cpu_choose(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *ids,
                     bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    reduce_loop loop = {.how = how, .uniform = how->uniform, .ids = cpu_id_values(ids)};
    if (how->temperature > 0)
        BG_TRY(cpu_reserve_own(cpu, head->rows * (sizeof(bg_candidate) / sizeof(float)), err));
    return chunks(cpu, head, bias, in, n_rows, choose_rows, &loop, NULL, err);
}

static void score_rows(void *context, size_t begin, size_t end, int thread)
{
    (void)thread;
    const reduce_loop *a = context;
    for (size_t i = begin; i < end; i++) {
        const float *x = a->logits + i * a->cols;
        a->nll[i] = a->cpu->kernels->log_sum_exp(x, a->cols) - (double)x[a->targets[i]];
    }
}

bg_status cpu_score(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                    const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                    bg_error *err)
{
    reduce_loop loop = {.targets = targets, .nll = nll};
    return chunks((cpu_backend *)backend, head, bias, in, n_rows, score_rows, &loop, NULL, err);
}
