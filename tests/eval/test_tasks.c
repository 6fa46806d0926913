/* Tasks against lm-evaluation-harness (tests/fixtures/tasks): each request's log-likelihood, each
 * metric; and the same figures however requests are put together. */
#include "reference.h"

#include "bitgauge/bitgauge.h"
#include "core/alloc.h"
#include "core/file.h"
#include "eval/task.h"

#define FIXTURES "tests/fixtures/tasks/"

static bg_backend *backend;
static json_t *expected;

static void data_path(char *path, size_t size, const char *task, const char *kind)
{
    snprintf(path, size, FIXTURES "%s.%s", task, kind);
}

static bool load_set(const bg_model *model, const bg_tokenizer *tokenizer, const bg_eval_task *task,
                     const char *kind, bg_task_set *set)
{
    char path[128];
    data_path(path, sizeof path, task->name, kind);
    bg_status status =
        bg_task_set_load(&model->config, tokenizer, task, path, 0, (bg_progress){0}, set, &err);
    CHECK(status == BG_OK, "%s: %s", task->name, err.message);
    return status == BG_OK;
}

static bool run_set(const bg_model *model, bg_task_set *set, size_t batch, const char *name)
{
    bg_likelihood_options options = {batch, true};
    bg_status status =
        bg_likelihood_run(model, set->groups, set->n, &options, name, (bg_progress){0}, &err);
    CHECK(status == BG_OK, "%s: %s", name, err.message);
    return status == BG_OK;
}

static void check_requests(const char *model, const char *task, const bg_task_set *set)
{
    const json_t *entry = json_object_get(json_object_get(expected, model), task);
    const json_t *documents = json_object_get(entry, "documents");
    CHECK(set->n == json_array_size(documents), "%s %s: %zu documents", model, task, set->n);
    double worst = 0;
    int wrong = 0;
    for (size_t i = 0; i < set->n; i++) {
        const json_t *document = json_array_get(documents, i);
        const json_t *likelihoods = json_object_get(document, "loglikelihood");
        const json_t *greedy = json_object_get(document, "greedy");
        CHECK(set->groups[i].n == json_array_size(likelihoods), "%s %s %zu: %zu requests", model,
              task, i, set->groups[i].n);
        for (size_t k = 0; k < set->groups[i].n; k++) {
            const bg_request *request = &set->groups[i].requests[k];
            double there = json_number_value(json_array_get(likelihoods, k));
            worst = fmax(worst, fabs(-request->nll - there));
            if (fabs(-request->nll - there) > 1e-3 && wrong++ < 3)
                CHECK(false, "%s %s, document %zu, choice %zu: %.5f, expected %.5f", model, task, i,
                      k, -request->nll, there);
            CHECK(request->greedy == json_is_true(json_array_get(greedy, k)),
                  "%s %s, document %zu, choice %zu: greedy", model, task, i, k);
        }
    }
    printf("  %s, %s: largest difference %.1e\n", model, task, worst);
}

static void check_metrics(const char *model, const bg_eval_task *task, const bg_task_set *set)
{
    const json_t *entry = json_object_get(json_object_get(expected, model), task->name);
    const json_t *metrics = json_object_get(entry, "metrics");
    bg_task_result got;
    OK(bg_task_set_count(set, task, &got, &err));
    CHECK(got.n_metrics * 2 == json_object_size(metrics), "%s: %zu metrics", task->name,
          got.n_metrics);
    for (size_t i = 0; i < got.n_metrics; i++) {
        const bg_task_metric *m = &got.metrics[i];
        char key[64];
        snprintf(key, sizeof key, "%s_stderr", m->name);
        double value = reference(metrics, m->name, NULL), error = reference(metrics, key, NULL);
        bool perplexity = strcmp(m->name, "perplexity") == 0;
        CHECK(fabs(m->value - value) <= (perplexity ? 1e-3 * value : 1e-12), "%s %s %s: %g, not %g",
              model, task->name, m->name, m->value, value);
        /* The harness draws that of a perplexity by bootstrap. */
        if (!perplexity)
            CHECK(fabs(m->stderr_ - error) <= 1e-12, "%s %s: %g, not %g", task->name, key,
                  m->stderr_, error);
    }
}

static void check_model(const char *name, const char *directory)
{
    if (!bg_is_directory(directory)) {
        SKIP("%s is not there", directory);
        return;
    }
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open(directory, &tokenizer, &err));
    bg_model *model = load_model(backend, directory, "fp32");
    for (size_t i = 0; i < BG_EVAL_TASKS; i++) {
        const bg_eval_task *task = &bg_eval_tasks[i];
        bg_task_set set;
        if (!task->build || !load_set(model, tokenizer, task, "jsonl", &set)) continue;
        if (run_set(model, &set, 8, task->name)) {
            check_requests(name, task->name, &set);
            check_metrics(name, task, &set);
        }
        bg_task_set_free(&set);
    }
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
}

static void test_gpt2(void)
{
    check_model("mini-gpt2", "models/demo-decoder");
}

static void test_llama(void)
{
    check_model("mini-llama", "../shared/models/mini-llama");
}

static void test_phi(void)
{
    check_model("mini-phi", "../shared/models/mini-phi");
}

int main(void)
{
    OK(bg_backend_open("cpu", 2, &backend, &err));
    OK(bg_json_load(FIXTURES "reference.json", 1 << 20, &expected, &err));
    if (!expected) return 1;
    RUN(test_gpt2);
    RUN(test_llama);
    RUN(test_phi);
    json_decref(expected);
    backend->ops->free(backend);
    return test_finish();
}
