/* Tasks against lm-evaluation-harness (tests/fixtures/tasks): each request's log-likelihood, each
 * metric; and the same figures however requests are put together. */
#include "reference.h"

#include "bitgauge/bitgauge.h"
#include "core/alloc.h"
#include "core/file.h"
#include "eval/answers.h"
#include "eval/dataset.h"
#include "eval/task.h"
#include "eval/words.h"

#include <unistd.h>

#define FIXTURES "tests/fixtures/tasks/"

/* With sanitizers the models beside the embedded one are asked a few questions alone. */
#if defined(__SANITIZE_ADDRESS__)
enum { FEW = 8 };
#else
enum { FEW = 0 };
#endif

static bg_backend *backend;
static json_t *expected;

static void data_path(char *path, size_t size, const char *task, const char *kind)
{
    snprintf(path, size, FIXTURES "%s.%s", task, kind);
}

static bool load_set(const bg_model *model, const bg_tokenizer *tokenizer, const bg_eval_task *task,
                     const char *kind, int64_t limit, bg_task_set *set)
{
    char path[128];
    data_path(path, sizeof path, task->name, kind);
    bg_status status =
        bg_task_set_load(&model->config, tokenizer, task, path, limit, (bg_progress){0}, set, &err);
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

/* To 1e-3, or, where thousands of nats were added up in 32 bits over there, to a millionth. */
static void check_requests(const char *model, const char *task, const bg_task_set *set)
{
    const json_t *entry = json_object_get(json_object_get(expected, model), task);
    const json_t *documents = json_object_get(entry, "documents");
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
            double bound = fmax(1e-3, 1e-6 * fabs(there));
            if (fabs(-request->nll - there) > bound && wrong++ < 3)
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

static void check_model(const char *name, const char *directory, int64_t limit)
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
        if (!task->build || !load_set(model, tokenizer, task, "jsonl", limit, &set)) continue;
        if (run_set(model, &set, 8, task->name)) {
            check_requests(name, task->name, &set);
            CHECK(set.n == (limit ? (size_t)limit : 40), "%zu documents", set.n);
            if (!limit) check_metrics(name, task, &set);
        }
        bg_task_set_free(&set);
    }
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
}

static void test_gpt2(void)
{
    check_model("mini-gpt2", "models/demo-decoder", 0);
}

static void test_llama(void)
{
    check_model("mini-llama", "../shared/models/mini-llama", FEW);
}

static void test_phi(void)
{
    check_model("mini-phi", "../shared/models/mini-phi", FEW);
}

static void test_opt(void)
{
    check_model("mini-opt", "../shared/models/mini-opt", FEW);
}

static void test_t5(void)
{
    check_model("mini-t5", "../shared/models/mini-t5", FEW);
}

/* The same questions of every kind of file, and the same figures whatever runs side by side: within
 * the rounding of sums of floats in another order, at int8 those of the head alone. */
static void check_batches(const bg_tokenizer *tokenizer, const char *precision, const char *name,
                          int64_t documents, double tolerance)
{
    const bg_eval_task *task = bg_eval_task_by_name(name);
    bg_model *model = load_model(backend, "models/demo-decoder", precision);
    bg_task_set alone, together;
    if (!load_set(model, tokenizer, task, "parquet", documents, &alone)) return;
    if (!load_set(model, tokenizer, task, "jsonl", documents, &together)) return;
    CHECK(alone.n == (size_t)documents && together.n == alone.n, "%zu documents", alone.n);
    run_set(model, &alone, 0, name);
    run_set(model, &together, 5, name);
    double worst = 0;
    for (size_t i = 0; i < alone.n && i < together.n; i++)
        for (size_t k = 0; k < alone.groups[i].n; k++) {
            const bg_request *a = &alone.groups[i].requests[k];
            const bg_request *b = &together.groups[i].requests[k];
            CHECK(a->n == b->n && a->scored == b->scored &&
                      memcmp(a->ids, b->ids, a->n * sizeof *a->ids) == 0,
                  "%s %zu %zu: the same tokens", name, i, k);
            worst = fmax(worst, fabs(a->nll - b->nll));
        }
    printf("  %s, %s: largest difference %.1e\n", precision, name, worst);
    CHECK(worst <= tolerance, "%s %s: %g", precision, name, worst);
    bg_task_set_free(&alone);
    bg_task_set_free(&together);
    bg_model_free(model);
}

static void test_batches(void)
{
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open("models/demo-decoder", &tokenizer, &err));
    check_batches(tokenizer, "fp32", "hellaswag", 8, 1e-4);
    check_batches(tokenizer, "fp32", "lambada_openai", 12, 1e-4);
    check_batches(tokenizer, "nf4", "arc_easy", 8, 1e-4);
    check_batches(tokenizer, "int8", "arc_easy", 4, 2e-5);
    /* Activations in 16 bits, and their codes, may round the other way. */
    check_batches(tokenizer, "int8-plain", "arc_easy", 8, 1e-3);
    bg_tokenizer_close(tokenizer);
}

/* Choices with the same text have the same figure, and the first of them is taken. */
static void test_equal_choices(void)
{
    static int32_t ids[3][4] = {{5, 6, 7, 8}, {5, 6, 7, 8}, {5, 6, 9, 8}};
    bg_request_group group = {.n = 3};
    for (int k = 0; k < 3; k++)
        group.requests[k] = (bg_request){.ids = ids[k], .n = 4, .scored = 2};
    bg_model *model = load_model(backend, "models/demo-decoder", "nf4");
    bg_likelihood_options options = {4, false};
    OK(bg_likelihood_run(model, &group, 1, &options, "test", (bg_progress){0}, &err));
    CHECK(group.requests[0].nll == group.requests[1].nll && group.requests[0].nll > 0 &&
              group.requests[2].nll != group.requests[0].nll,
          "%g %g %g", group.requests[0].nll, group.requests[1].nll, group.requests[2].nll);
    struct bg_task_answer answer = {.gold = 1, .characters = {4, 4, 4}};
    bg_task_set set = {&group, &answer, 1};
    bg_task_result got;
    group.requests[2].nll = 1e9;
    OK(bg_task_set_count(&set, bg_eval_task_by_name("boolq"), &got, &err));
    CHECK(got.n_metrics == 1 && got.metrics[0].value == 0 && isnan(got.metrics[0].stderr_),
          "the first of two equals");
    bg_model_free(model);
}

static bg_status make(const char *task, const char *text, bg_document *document)
{
    char path[] = TEMPORARY ".jsonl";
    const bg_eval_task *t = bg_eval_task_by_name(task);
    bg_table *table = NULL;
    const bg_column *columns[BG_MOST_COLUMNS_READ];
    int fd = mkstemps(path, 6);
    CHECK(fd >= 0, "a temporary file");
    close(fd);
    OK(bg_write_file(path, text, strlen(text), &err));
    bg_status status = bg_table_open(path, &table, &err);
    for (size_t i = 0; status == BG_OK && t->columns[i]; i++)
        status = bg_table_column(table, t->columns[i], &columns[i], &err);
    if (status == BG_OK) status = t->build(columns, 0, document, &err);
    bg_table_close(table);
    remove(path);
    return status;
}

static void test_documents(void)
{
    bg_document d = {0};
    OK(make(
        "hellaswag",
        "{\"activity_label\": \" Baking\", \"ctx_a\": \"[header] A [title] B  c [d\\ne] f\", "
        "\"ctx_b\": \"she SAID\", \"endings\": [\" x   y [substeps]\", \"é\"], \"label\": \"1\"}",
        &d));
    CHECK(d.context_size == 31 && memcmp(d.text.data, "Baking: A. B c [d\ne] f She said", 31) == 0,
          "%zu: %.*s", d.context_size, (int)d.context_size, d.text.data);
    CHECK(d.n_choices == 2 && d.gold == 1 && d.choices[1].characters == 1 && d.choices[1].size == 3,
          "lengths in characters");
    OK(make("lambada_openai", "{\"text\": \"one two  three\"}", &d));
    CHECK(d.context_size == 8 && memcmp(d.text.data, "one two  three", 14) == 0, "the last word");
    OK(make("lambada_openai", "{\"text\": \"word\"}", &d));
    CHECK(d.context_size == 0 && memcmp(d.text.data, " word", 5) == 0, "no context");
    static const struct {
        const char *task, *text, *part;
    } bad[] = {
        {"boolq", "{\"passage\": \"p\", \"question\": \"q\", \"label\": -1}", "label is -1"},
        {"piqa", "{\"goal\": \"p\", \"sol1\": \"q\", \"sol2\": \"r\", \"label\": 2}", "label is 2"},
        {"piqa", "{\"goal\": \"p\", \"sol1\": \"q\", \"label\": 2}", "sol2"},
        {"arc_easy",
         "{\"question\": \"p\", \"choices\": {\"text\": [], \"label\": []}, \"answerKey\": \"A\"}",
         "0 answers"},
        {"arc_easy",
         "{\"question\": \"p\", \"choices\": {\"text\": [\"a\"], \"label\": [\"A\"]}, "
         "\"answerKey\": \"B\"}",
         "label"},
        {"sst2", "{\"sentence\": 3, \"label\": 0}", "sentence"},
        {"sst2", "{\"sentence\": \"a\", \"label\": \"good\"}", "label"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bg_status status = make(bad[i].task, bad[i].text, &d);
        CHECK(status == BG_ERR_FORMAT && strstr(err.message, bad[i].part), "%s: %s", bad[i].task,
              err.message);
    }
    bg_text_free(&d.text);
}

/* White space and lengths as Python's str has them. */
static void test_words(void)
{
    static const struct {
        const char *text;
        size_t leading, trailing, characters;
        bool valid;
    } cases[] = {
        {"", 0, 0, 0, true},
        {" \t\n", 3, 3, 3, true},
        {" a\xC2\xA0", 1, 2, 3, true},                       /* a space that does not break */
        {"\xE3\x80\x80\xC3\xA9\xE3\x80\x80", 3, 3, 3, true}, /* ideographic spaces */
        {"a\xE2\x80\x8B", 0, 0, 2, true},                    /* of no width, and no space */
        {"\x1F\xF0\x9F\x99\x82\xC2\x85", 1, 2, 3, true},
        {"a \x80", 0, 0, 3, false},
        {"\xE3\x80", 0, 0, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = cases[i].text;
        size_t n = strlen(text);
        CHECK(bg_leading_space(text, n) == cases[i].leading &&
                  bg_trailing_space(text, n) == cases[i].trailing &&
                  bg_count_characters(text, n) == cases[i].characters &&
                  bg_is_utf8(text, n) == cases[i].valid,
              "case %zu: %zu %zu %zu %d", i, bg_leading_space(text, n), bg_trailing_space(text, n),
              bg_count_characters(text, n), bg_is_utf8(text, n));
    }
}

/* Interruptions, models that cannot be asked, and every allocation failing in turn. */
static void test_refusals(void)
{
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open("models/demo-decoder", &tokenizer, &err));
    bg_model *model = load_model(backend, "models/demo-decoder", "nf4");
    const bg_eval_task *task = bg_eval_task_by_name("arc_easy");
    const bg_task_options options = {3, 2};
    bg_task_result got;
    for (int n = 1; n <= 4; n++) {
        int calls = n;
        CHECK(bg_task_measure(model, tokenizer, task, FIXTURES "arc_easy.jsonl", &options,
                              (bg_progress){refuse, &calls}, &got, &err) == BG_ERR_INTERRUPTED,
              "interrupted");
    }
    CHECK(bg_task_measure(model, tokenizer, task, FIXTURES "piqa.jsonl", &options, (bg_progress){0},
                          &got, &err) == BG_ERR_FORMAT,
          "%s", err.message);
    CHECK(bg_task_check(task, FIXTURES "piqa.jsonl", 0, &err) == BG_ERR_FORMAT, "other columns");
    CHECK(bg_task_check(task, "/dev/null", 0, &err) != BG_OK, "an empty file");
    OK(bg_task_check(task, FIXTURES "arc_easy.parquet", 0, &err));
    bg_alloc_fail_after(-1);
    OK(bg_task_measure(model, tokenizer, task, FIXTURES "arc_easy.jsonl", &options,
                       (bg_progress){0}, &got, &err));
    long allocations = bg_alloc_count();
    CHECK(got.documents == 3 && got.requests == 11, "%lld requests", (long long)got.requests);
    for (long k = 0; k < allocations; k += k < 40 ? 1 : allocations / 40 + 1) {
        bg_alloc_fail_after(k);
        bg_status status = bg_task_measure(model, tokenizer, task, FIXTURES "arc_easy.jsonl",
                                           &options, (bg_progress){0}, &got, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "allocation %ld: %d %s", k, (int)status,
              err.message);
    }
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
    OK(bg_tokenizer_open("models/demo-classifier", &tokenizer, &err));
    model = load_model(backend, "models/demo-classifier", "nf4");
    CHECK(bg_task_measure(model, tokenizer, task, FIXTURES "arc_easy.jsonl", &options,
                          (bg_progress){0}, &got, &err) == BG_ERR_UNSUPPORTED,
          "%s", err.message);
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
}

/* T5's answers about the first 32 sentences of SST-2, word for word. */
static void test_answers(void)
{
    const char *directory = "../shared/models/mini-t5",
               *data = "../shared/data/sst2/validation.tsv";
    json_t *recorded = NULL;
    if (!bg_file_exists(data) || !bg_is_directory(directory)) {
        SKIP("%s or %s is not there", directory, data);
        return;
    }
    OK(bg_json_load("../shared/reference/reference.json", 64 << 20, &recorded, &err));
    const json_t *fp32 = json_object_get(json_object_get(recorded, "mini-t5"), "fp32");
    const json_t *outputs = json_object_get(fp32, "outputs_first32");
    const bg_eval_task *task = bg_eval_task_by_name("sst2");
    bg_tokenizer *tokenizer;
    bg_dataset sentences;
    OK(bg_tokenizer_open(directory, &tokenizer, &err));
    OK(bg_dataset_open(data, 32, &sentences, &err));
    bg_model *model = load_model(backend, directory, "fp32");
    CHECK(json_array_size(outputs) == 32 && sentences.n == 32, "32 answers");
    size_t right = 0;
    for (size_t i = 0; i < sentences.n; i++) {
        char *answer = NULL;
        OK(bg_answer(model, tokenizer, task->question, sentences.examples[i].text,
                     sentences.examples[i].size, &answer, &err));
        CHECK_STRING(answer ? answer : "", json_string_value(json_array_get(outputs, i)));
        right +=
            answer && strcmp(answer, sentences.examples[i].label ? "positive" : "negative") == 0;
        bg_free(answer);
    }
    bg_task_result got;
    const bg_task_options options = {FEW ? 32 : 0, 8};
    const double accuracy = FEW ? (double)right / 32 : reference(fp32, "accuracy", NULL);
    OK(bg_task_measure(model, tokenizer, task, data, &options, (bg_progress){0}, &got, &err));
    CHECK(got.n_metrics == 2 && strcmp(got.metrics[1].name, "exact_match") == 0 &&
              fabs(got.metrics[1].value - accuracy) < 1e-9,
          "%g, expected %g", got.metrics[1].value, accuracy);
    bg_model_free(model);
    bg_dataset_close(&sentences);
    bg_tokenizer_close(tokenizer);
    json_decref(recorded);
}

int main(void)
{
    OK(bg_backend_open("cpu", 2, &backend, &err));
    OK(bg_json_load(FIXTURES "reference.json", 1 << 20, &expected, &err));
    if (!expected) return 1;
    RUN(test_gpt2);
    RUN(test_llama);
    RUN(test_phi);
    RUN(test_opt);
    RUN(test_batches);
    RUN(test_equal_choices);
    RUN(test_documents);
    RUN(test_words);
    RUN(test_refusals);
    RUN(test_t5);
    RUN(test_answers);
    json_decref(expected);
    backend->ops->free(backend);
    return test_finish();
}
