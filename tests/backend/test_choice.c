/* Choosing tokens: greedy, and by a distribution whose frequencies are known. */
#include "test.h"

#include "backend/choice.h"
static int32_t choose(const float *logits, size_t n, const bg_choice *how, double uniform)
{
    float x[8];
    bg_candidate scratch[8];
    memcpy(x, logits, n * sizeof *x);
    return bg_choose(x, n, how, uniform, scratch);
}

static void test_largest(void)
{
    const float x[] = {1, 3, 3, -2, INFINITY}, bad[] = {NAN, 1};
    const int32_t forbidden[] = {4, 1, 2, 0, 3};
    bg_choice how = {0};
    CHECK(choose(x, 4, &how, 0) == 1, "the first of two");
    CHECK(choose(x, 5, &how, 0) == 4, "infinity");
    CHECK(choose(x + 3, 1, &how, 0) == 0, "one");
    CHECK(choose(bad, 2, &how, 0) == -1 && choose(bad + 1, 1, &how, 0) == 0, "NaN");
    how.forbidden = forbidden;
    how.n_forbidden = 2;
    CHECK(choose(x, 5, &how, 0) == 2, "the next, where two are forbidden");
    how.n_forbidden = 5;
    CHECK(choose(x, 5, &how, 0) == 0, "all are");
    how.n_forbidden = 1;
    how.forbidden = &(int32_t){0};
    CHECK(choose(bad, 2, &how, 0) == -1, "NaN where it is forbidden");
    how.temperature = 1;
    how.top_p = 1;
    CHECK(choose(bad, 2, &how, 0) == -1, "NaN, sampled");
    for (int i = 0; i < 100; i++) CHECK(choose(x, 2, &how, i / 100.0) == 1, "forbidden, sampled");
    CHECK(choose(x, 5, &how, 0.99) == 4, "infinity, sampled");
}

static void frequencies(double temperature, int top_k, double top_p, const double *expected)
{
    const float x[4] = {0, 1, 2, -1};
    enum { DRAWS = 40000 };
    bg_random random = {42};
    const bg_choice how = {.temperature = temperature, .top_k = top_k, .top_p = top_p};
    int count[4] = {0};
    for (int i = 0; i < DRAWS; i++) count[choose(x, 4, &how, bg_random_uniform(&random))]++;
    for (int i = 0; i < 4; i++) {
        double p = expected[i], deviation = sqrt(p * (1 - p) / DRAWS);
        CHECK(fabs((double)count[i] / DRAWS - p) <= 4 * deviation,
              "T %g, k %d, p %g, token %d: %g, %g", temperature, top_k, top_p, i,
              (double)count[i] / DRAWS, p);
    }
}

static void test_sampling(void)
{
    double e[4], sum = 0, half[4], half_sum = 0;
    const double x[4] = {0, 1, 2, -1};
    for (int i = 0; i < 4; i++) sum += e[i] = exp(x[i]);
    for (int i = 0; i < 4; i++) half_sum += half[i] = exp(x[i] / 0.5);
    for (int i = 0; i < 4; i++) e[i] /= sum;
    for (int i = 0; i < 4; i++) half[i] /= half_sum;
    frequencies(1, 0, 1, e);
    frequencies(0.5, 0, 1, half);
    frequencies(1, 2, 1, (double[]){0, e[1] / (e[1] + e[2]), e[2] / (e[1] + e[2]), 0});
    frequencies(1, 1, 1, (double[]){0, 0, 1, 0});
    /* 0.64 is less than 0.7, 0.64 + 0.24 is not: two tokens. */
    frequencies(1, 0, 0.7, (double[]){0, e[1] / (e[1] + e[2]), e[2] / (e[1] + e[2]), 0});
    frequencies(1, 0, 1e-9, (double[]){0, 0, 1, 0});
    bg_random a = {7}, b = {7};
    for (int i = 0; i < 100; i++) {
        double u = bg_random_uniform(&a);
        CHECK(u == bg_random_uniform(&b) && u >= 0 && u < 1, "repeatable");
    }
}

int main(void)
{
    RUN(test_largest);
    RUN(test_sampling);
    return test_finish();
}
