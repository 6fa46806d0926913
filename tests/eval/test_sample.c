/* Choosing tokens: greedy, and by a distribution whose frequencies are known. */
#include "test.h"

#include "core/alloc.h"
#include "eval/dataset.h"
#include "eval/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void test_largest(void)
{
    float x[5] = {1, 3, 3, -2, 0};
    CHECK(bg_choose_largest(x, 5) == 1, "the first of two");
    x[0] = NAN;
    CHECK(bg_choose_largest(x, 5) == 1, "NaN does not win");
    CHECK(bg_choose_largest(x + 3, 1) == 0, "one");
}

static void frequencies(double temperature, int top_k, double top_p, const double *expected)
{
    const float x[4] = {0, 1, 2, -1};
    enum { DRAWS = 40000 };
    bg_random random = {42};
    bg_candidate scratch[4];
    int count[4] = {0};
    for (int i = 0; i < DRAWS; i++)
        count[bg_choose_sampled(x, 4, temperature, top_k, top_p, &random, scratch)]++;
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

static bg_status read_tsv(const char *content, size_t size, int64_t limit, bg_dataset *d,
                          bg_error *err)
{
    char path[] = TEMPORARY;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, content, size) == (ssize_t)size, "a temporary file");
    close(fd);
    bg_status status = bg_dataset_open(path, limit, d, err);
    unlink(path);
    return status;
}

static void test_dataset(void)
{
    bg_dataset d;
    bg_error err;
    static const char good[] = "label\tx\tsentence\r\n1\t\ta b\r\n\n0\tq\tlast";
    CHECK(read_tsv(good, sizeof good - 1, 0, &d, &err) == BG_OK, "%s", err.message);
    CHECK(d.n == 2 && d.examples[0].label == 1 && d.examples[0].size == 3 &&
              memcmp(d.examples[1].text, "last", 4) == 0,
          "columns by name");
    bg_dataset_close(&d);
    CHECK(read_tsv(good, sizeof good - 1, 1, &d, &err) == BG_OK && d.n == 1, "limit");
    bg_dataset_close(&d);
    static const char *const bad[] = {
        "",
        "sentence label\na\t1\n",
        "sentence\tlabel\n",
        "sentence\tlabel\na\n",
        "sentence\tlabel\na\tx\n",
        "sentence\tlabel\na\t-1\n",
        "sentence\tlabel\na\t\n",
        "sentence\tlabel\na\t99999999999\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(read_tsv(bad[i], strlen(bad[i]), 0, &d, &err) == BG_ERR_FORMAT, "%zu", i);
        CHECK(strstr(err.message, "/tmp/bitgauge-test-"), "%s", err.message);
    }
}

int main(void)
{
    RUN(test_largest);
    RUN(test_sampling);
    RUN(test_dataset);
    return test_finish();
}
