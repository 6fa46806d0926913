#include "eval/likelihood.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of a batch, unless one input alone is longer or the device wants more; rows picked for the
 * head at a time. */
enum { MOST_ROWS = 1024, MOST_SELECTED = 256 };

/* Requests of one group that are run in one slot of the cache: first the tokens that all their
 * inputs begin with, then the rest of each in turn. */
typedef struct {
    const bg_request_group *group;
    bg_request *requests[BG_MOST_CHOICES];
    size_t n;
    size_t prefix;  /* tokens that all inputs begin with */
    size_t longest; /* input; of an encoder-decoder model, or source */
    size_t first_row;
} unit;

typedef struct {
    bg_run *run;
    bool greedy;
    int32_t *ids;           /* (max_rows) */
    bg_sequence *sequences; /* (slots) */
    size_t max_rows, slots;
    size_t n_sequences, rows; /* of the pass being put together */
    /* rows picked for the head, what is predicted there, and for whom */
    size_t n_selected;
    size_t selected[MOST_SELECTED];
    int32_t targets[MOST_SELECTED], chosen[MOST_SELECTED];
    double nll[MOST_SELECTED];
    bg_request *owners[MOST_SELECTED];
} scorer;

/* ---- which requests go together -------------------------------------------------------------- */

static size_t input_size(const bg_request *request)
{
    return request->n - 1;
}

static size_t common_prefix(const bg_request *a, const bg_request *b)
{
    size_t n = bg_min_size(input_size(a), input_size(b)), i = 0;
    while (i < n && a->ids[i] == b->ids[i]) i++;
    return i;
}

static bool same_input(const bg_request *a, const bg_request *b)
{
    return a->n == b->n && common_prefix(a, b) == input_size(a);
}

static bool same_request(const bg_request *a, const bg_request *b)
{
    return same_input(a, b) && a->scored == b->scored && a->ids[a->n - 1] == b->ids[b->n - 1];
}

/* The first request of the group that asks the same: it alone is run, so that equal texts get equal
 * figures whatever runs beside them. */
static size_t first_like(const bg_request_group *group, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (same_request(&group->requests[k], &group->requests[i])) return k;
    return i;
}

static void add_request(unit *u, bg_request *request)
{
    size_t size = input_size(request);
    u->prefix = u->n ? bg_min_size(u->prefix, common_prefix(u->requests[0], request)) : size;
    u->longest = bg_max_size(u->longest, size);
    u->requests[u->n++] = request;
}

/* Makes the units of a group; returns how many. */
static size_t split_group(bg_request_group *group, bool apart, unit *units)
{
    bool taken[BG_MOST_CHOICES] = {false};
    size_t count = 0;
    for (size_t i = 0; i < group->n; i++) {
        if (taken[i] || first_like(group, i) < i) continue;
        unit *u = &units[count++];
        *u = (unit){.group = group, .longest = group->n_source};
        for (size_t k = i; k < group->n; k++) {
            if (taken[k] || first_like(group, k) < k) continue;
            if (apart && !same_input(&group->requests[i], &group->requests[k])) continue;
            taken[k] = true;
            add_request(u, &group->requests[k]);
        }
    }
    return count;
}

/* Longest first; equal lengths in the order of the documents, whatever the sort does with them. */
static int by_length(const void *a, const void *b)
{
    const unit *x = a, *y = b;
    if (x->longest != y->longest) return x->longest < y->longest ? 1 : -1;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return x->requests[0] < y->requests[0] ? -1 : 1;
}

/* ---- passes ---------------------------------------------------------------------------------- */

static bg_status flush(scorer *s, bg_error *err)
{
    const size_t n = s->n_selected;
    s->n_selected = 0;
    if (n == 0) return BG_OK;
    BG_TRY(bg_run_select(s->run, s->selected, n, err));
    BG_TRY(bg_run_score(s->run, n, s->targets, s->nll, err));
    if (s->greedy) {
        BG_TRY(bg_run_choose(s->run, n, &(bg_choice){0}, err));
        BG_TRY(bg_run_chosen(s->run, 0, n, s->chosen, err));
    }
    for (size_t i = 0; i < n; i++) {
        s->owners[i]->nll += s->nll[i];
        if (s->greedy) s->owners[i]->greedy &= s->chosen[i] == s->targets[i];
    }
    return BG_OK;
}

/* Puts tokens [begin, end) of a request's input into the pass, behind `begin` that are in the slot.
 */
static size_t add_sequence(scorer *s, const bg_request *request, size_t slot, size_t begin,
                           size_t end)
{
    size_t first = s->rows, rows = end - begin;
    memcpy(s->ids + first, request->ids + begin, rows * sizeof *s->ids);
    s->sequences[s->n_sequences++] =
        (bg_sequence){.first_row = first, .rows = rows, .slot = slot, .past = begin, .keys = end};
    s->rows += rows;
    return first;
}

static bg_status run_pass(scorer *s, bg_error *err)
{
    if (s->n_sequences == 0) return BG_OK;
    bg_status status = bg_run_forward(s->run, s->ids, s->sequences, s->n_sequences, err);
    s->n_sequences = s->rows = 0;
    return status;
}

/* Scores what of a request is predicted in rows that hold tokens [begin, end) of its input. */
static bg_status pick(scorer *s, bg_request *request, size_t first_row, size_t begin, size_t end,
                      bg_error *err)
{
    size_t at = bg_max_size(begin, input_size(request) - request->scored);
    for (; at < bg_min_size(end, input_size(request)); at++) {
        if (s->n_selected == MOST_SELECTED) BG_TRY(flush(s, err));
        s->selected[s->n_selected] = first_row + at - begin;
        s->targets[s->n_selected] = request->ids[at + 1];
        s->owners[s->n_selected++] = request;
    }
    return BG_OK;
}

/* Encoder-decoder models: reads the sources of the units, each into its slot. */
static bg_status run_sources(scorer *s, const unit *units, size_t n, bg_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const bg_request_group *group = units[i].group;
        if (group->n_source == 0) return BG_OK;
        memcpy(s->ids + s->rows, group->source, group->n_source * sizeof *s->ids);
        s->sequences[s->n_sequences++] = (bg_sequence){
            .first_row = s->rows, .rows = group->n_source, .slot = i, .keys = group->n_source};
        s->rows += group->n_source;
    }
    bg_status status = bg_run_encode(s->run, s->ids, s->sequences, s->n_sequences, err);
    s->n_sequences = s->rows = 0;
    return status;
}

static bg_status run_prefixes(scorer *s, unit *units, size_t n, bg_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (units[i].prefix > 0)
            units[i].first_row = add_sequence(s, units[i].requests[0], i, 0, units[i].prefix);
    BG_TRY(run_pass(s, err));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < units[i].n; k++)
            BG_TRY(pick(s, units[i].requests[k], units[i].first_row, 0, units[i].prefix, err));
    return flush(s, err);
}

/* The k-th request of each unit, behind the prefix. */
static bg_status run_rests(scorer *s, unit *units, size_t n, size_t k, bg_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (k < units[i].n && input_size(units[i].requests[k]) > units[i].prefix)
            units[i].first_row = add_sequence(s, units[i].requests[k], i, units[i].prefix,
                                              input_size(units[i].requests[k]));
    BG_TRY(run_pass(s, err));
    for (size_t i = 0; i < n; i++)
        if (k < units[i].n)
            BG_TRY(
                pick(s, units[i].requests[k], units[i].first_row, units[i].prefix, SIZE_MAX, err));
    return flush(s, err);
}

static bg_status run_batch(scorer *s, unit *units, size_t n, bg_error *err)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        most = bg_max_size(most, units[i].n);
        for (size_t k = 0; k < units[i].n; k++) {
            units[i].requests[k]->nll = 0;
            units[i].requests[k]->greedy = s->greedy;
        }
    }
    BG_TRY(run_sources(s, units, n, err));
    BG_TRY(run_prefixes(s, units, n, err));
    for (size_t k = 0; k < most; k++) BG_TRY(run_rests(s, units, n, k, err));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < units[i].n; k++)
            if (!isfinite(units[i].requests[k]->nll))
                return bg_fail(err, BG_ERR_FORMAT,
                               "a log-likelihood is not a finite number; the weights hold NaN or "
                               "infinity, or overflow at this precision");
    return BG_OK;
}

static bg_status run_units(scorer *s, unit *units, size_t n, size_t batch, const char *stage,
                           bg_progress progress, bg_error *err)
{
    size_t total = 0, done = 0;
    for (size_t i = 0; i < n; i++) total += units[i].n;
    for (size_t i = 0; i < n;) {
        size_t count = 0, rows = 0;
        while (i + count < n && count < batch && rows + units[i + count].longest <= s->max_rows)
            rows += units[i + count++].longest;
        BG_TRY(run_batch(s, units + i, count, err));
        for (size_t k = 0; k < count; k++) done += units[i + k].n;
        i += count;
        if (progress.call && !progress.call(progress.context, stage, done, total))
            return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted during %s", stage);
    }
    return BG_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void scorer_free(scorer *s)
{
    bg_run_free(s->run);
    bg_free(s->ids);
    bg_free(s->sequences);
}

static bg_status scorer_init(scorer *s, const bg_model *model, size_t longest, size_t slots,
                             bool greedy, bg_error *err)
{
    const size_t wanted = bg_max_size(model->backend->ops->rows_at_once(model->backend), MOST_ROWS);
    const size_t max_rows = bg_max_size(longest, bg_min_size(longest * slots, wanted));
    *s = (scorer){.greedy = greedy, .max_rows = max_rows, .slots = slots};
    s->ids = bg_alloc_array(max_rows, sizeof *s->ids);
    s->sequences = bg_alloc_array(slots, sizeof *s->sequences);
    bg_status status = BG_OK;
    if (!s->ids || !s->sequences) status = bg_fail_memory(err, max_rows * 16, "a batch");
    if (status == BG_OK)
        status = bg_run_create(model, max_rows, slots, longest, MOST_SELECTED, &s->run, err);
    if (status == BG_OK)
        bg_run_separate(s->run);
    else
        scorer_free(s);
    return status;
}

bg_status bg_likelihood_run(const bg_model *model, bg_request_group *groups, size_t n,
                            const bg_likelihood_options *options, const char *stage,
                            bg_progress progress, bg_error *err)
{
    const bool apart = options->batch == 0 || bg_format_has_outliers(model->precision);
    size_t total = 0, n_units = 0;
    for (size_t i = 0; i < n; i++) total += groups[i].n;
    if (total == 0) return BG_OK;
    unit *units = bg_alloc_array(total, sizeof *units);
    if (!units) return bg_fail_memory(err, total * sizeof *units, stage);
    for (size_t i = 0; i < n; i++) n_units += split_group(&groups[i], apart, units + n_units);
    qsort(units, n_units, sizeof *units, by_length);
    const size_t batch =
        bg_model_separates(model) ? bg_max_size(bg_min_size(options->batch, n_units), 1) : 1;
    scorer *s = bg_alloc(sizeof *s); /* too large for the stack of a small thread */
    bg_status status = s ? scorer_init(s, model, units[0].longest, batch, options->greedy, err)
                         : bg_fail_memory(err, sizeof *s, stage);
    if (status == BG_OK) {
        status = run_units(s, units, n_units, batch, stage, progress, err);
        scorer_free(s);
    }
    bg_free(s);
    bg_free(units);
    for (size_t i = 0; i < n && status == BG_OK; i++)
        for (size_t k = 0; k < groups[i].n; k++) {
            const bg_request *like = &groups[i].requests[first_like(&groups[i], k)];
            groups[i].requests[k].nll = like->nll;
            groups[i].requests[k].greedy = like->greedy;
        }
    return status;
}
