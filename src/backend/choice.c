#include "backend/choice.h"

#include <math.h>
#include <stdlib.h>

double bg_random_uniform(bg_random *random)
{
    uint64_t z = random->state += 0x9E3779B97F4A7C15ULL;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* Largest logit first; equal ones by id, so that the order does not depend on the sort. */
static int descending(const void *a, const void *b)
{
    const bg_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* A candidate's probability, as a multiple of the first one's. */
static double share(const bg_candidate *first, size_t i, double temperature)
{
    return exp(((double)first[i].logit - first->logit) / temperature);
}

static int32_t sampled(const float *logits, size_t n, const bg_choice *how, double uniform,
                       bg_candidate *scratch)
{
    for (size_t i = 0; i < n; i++) scratch[i] = (bg_candidate){(int32_t)i, logits[i]};
    qsort(scratch, n, sizeof *scratch, descending);
    size_t kept = how->top_k > 0 && (size_t)how->top_k < n ? (size_t)how->top_k : n;
    double sum = 0, most = 0;
    for (size_t i = 0; i < kept; i++) sum += share(scratch, i, how->temperature);
    /* The smallest set that reaches top_p has at least the first. */
    size_t inside = 0;
    while (inside < kept && (inside == 0 || most < how->top_p * sum))
        most += share(scratch, inside++, how->temperature);
    double target = uniform * most;
    for (size_t i = 0; i < inside; i++) {
        target -= share(scratch, i, how->temperature);
        if (target < 0) return scratch[i].id;
    }
    return scratch[inside - 1].id;
}

int32_t bg_choose(float *logits, size_t n, const bg_choice *how, double uniform,
                  bg_candidate *scratch)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(logits[i])) return -1;
    for (size_t i = 0; i < how->n_forbidden; i++) logits[how->forbidden[i]] = -INFINITY;
    return how->temperature > 0 ? sampled(logits, n, how, uniform, scratch) : largest(logits, n);
}
