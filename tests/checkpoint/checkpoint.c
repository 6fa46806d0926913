/* Directories: configuration, single files, shards and their index, and what bg_inspect says. */
#include "test.h"

#include "checkpoint/checkpoint.h"
#include "checkpoint/files.h"
#include "core/alloc.h"
#include "core/json.h"

#include <sys/stat.h>

#define ENTRY(name, dtype, shape, from, to)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]" \
    "}"

static const char config[] = "{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\","
                             "\"n_embd\":256,\"layer_norm_epsilon\":1e-05,\"n_inner\":null}";
static const char header_1[] =
    "{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("a", "F32", "[2,2]", "0", "16") "}";
static const char header_2[] =
    "{" ENTRY("b", "F16", "[4]", "0", "8") "," ENTRY("c", "I64", "[1]", "8", "16") "}";
static const char index_good[] =
    "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"b\":\"s-2.safetensors\","
    "\"a\":\"s-1.safetensors\"}}"; /* c is in no map, which is allowed */

static void write_shards(void)
{
    files_text("config.json", config);
    files_safetensors("s-1.safetensors", header_1, 16);
    files_safetensors("s-2.safetensors", header_2, 16);
    files_text("model.safetensors.index.json", index_good);
}

/* Opening must fail so, naming `file` and `place`, with a remedy. */
static void check_refused(bg_status expected, const char *file, const char *place)
{
    bg_checkpoint *c;
    bg_error err = {0};
    bg_status status = bg_checkpoint_open(files_directory, &c, &err);
    CHECK(status == expected && err.status == status, "%d: %s", status, err.message);
    CHECK(c == NULL, "a checkpoint is left");
    CHECK(strncmp(err.message, files_directory, strlen(files_directory)) == 0, "%s", err.message);
    CHECK(strstr(err.message, file) && strstr(err.message, place), "%s: wanted %s, %s", err.message,
          file, place);
    CHECK(strstr(err.message, "download") || strstr(err.message, "convert") ||
              strstr(err.message, "a directory with"),
          "no remedy: %s", err.message);
    if (status == BG_OK) bg_checkpoint_close(c);
}

static void test_single_file(void)
{
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    files_begin();
    files_text("config.json", config);
    files_safetensors("model.safetensors", header_2, 16);
    CHECK(bg_checkpoint_has_weights(files_directory), "no weights");
    bg_status status = bg_checkpoint_open(files_directory, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        const bg_tensor *b = bg_checkpoint_find(c, "b");
        CHECK_STRING(bg_checkpoint_directory(c), files_directory);
        CHECK_STRING(bg_checkpoint_config_path(c), files_path("config.json"));
        CHECK(json_is_object(bg_checkpoint_config(c)), "no config");
        CHECK(bg_checkpoint_count(c) == 2, "%zu", bg_checkpoint_count(c));
        CHECK(b && b == bg_checkpoint_tensor(c, 0), "b is not found");
        CHECK(b && memcmp(b->data, "\0\1\2\3\4\5\6\7", 8) == 0, "wrong bytes");
        CHECK(b && b->file_index == 0 && strcmp(b->file, files_path("model.safetensors")) == 0,
              "wrong file");
        CHECK(!bg_checkpoint_find(c, "a") && !bg_checkpoint_find(c, ""), "found what is not there");
        CHECK(!bg_checkpoint_tensor(c, 2), "a third tensor");
        CHECK(bg_checkpoint_file_bytes(c) == 8 + strlen(header_2) + 16, "%zu",
              bg_checkpoint_file_bytes(c));
        bg_checkpoint_prefetch(c, bg_checkpoint_find(c, "c"));
        /* released bytes may still be read */
        bg_checkpoint_release(c, bg_checkpoint_find(c, "c"));
        CHECK(memcmp(bg_checkpoint_find(c, "c")->data, "\10\11\12\13", 4) == 0, "wrong bytes");
    }
    bg_checkpoint_close(c);

    status = bg_checkpoint_open_file(files_path("model.safetensors"), &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        CHECK(!bg_checkpoint_config(c) && !bg_checkpoint_config_path(c), "a config");
        CHECK_STRING(bg_checkpoint_directory(c), files_directory);
        CHECK(bg_checkpoint_count(c) == 2, "%zu", bg_checkpoint_count(c));
    }
    bg_checkpoint_close(c);

    files_remove("model.safetensors");
    CHECK(!bg_checkpoint_has_weights(files_directory), "weights");
    status = bg_checkpoint_open_config(files_directory, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        CHECK(bg_checkpoint_count(c) == 0 && !bg_checkpoint_find(c, "b"), "tensors");
        CHECK(json_is_object(bg_checkpoint_config(c)), "no config");
    }
    bg_checkpoint_close(c);
    files_end();
}

static void test_shards(void)
{
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    files_begin();
    write_shards();
    bg_status status = bg_checkpoint_open(files_directory, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        CHECK(bg_checkpoint_count(c) == 3, "%zu", bg_checkpoint_count(c));
        CHECK(bg_checkpoint_file_count(c) == 2, "%zu", bg_checkpoint_file_count(c));
        CHECK_STRING(bg_checkpoint_file_path(c, 0), files_path("s-1.safetensors"));
        CHECK_STRING(bg_checkpoint_find(c, "c")->file, files_path("s-2.safetensors"));
        CHECK(bg_checkpoint_find(c, "c")->file_index == 1, "wrong file");
        CHECK(bg_checkpoint_file_metadata(c, 0) && !bg_checkpoint_file_metadata(c, 1), "metadata");
        CHECK(bg_checkpoint_file_size(c, 0) == 8 + strlen(header_1) + 16, "wrong size");
    }
    bg_checkpoint_close(c);
    files_end();
}

static void test_bad_index(void)
{
#define MAP(entries) "{\"weight_map\":{" entries "}}"
    static const struct {
        const char *index;
        bg_status status;
        const char *place;
    } cases[] = {
        {"{", BG_ERR_FORMAT, "line 1"},
        {"[]", BG_ERR_FORMAT, "weight_map"},
        {"{\"weight_map\":[]}", BG_ERR_FORMAT, "weight_map"},
        {MAP(""), BG_ERR_FORMAT, "names no tensors"},
        {MAP("\"a\":1"), BG_ERR_FORMAT, "\"a\""},
        {MAP("\"a\":\"\""), BG_ERR_FORMAT, "\"a\""},
        {MAP("\"a\":\"..\""), BG_ERR_FORMAT, "\"..\""},
        {MAP("\"a\":\"/etc/passwd\""), BG_ERR_FORMAT, "\"/etc/passwd\""},
        {MAP("\"a\":\"../s-1.safetensors\""), BG_ERR_FORMAT, "\"../s-1.safetensors\""},
        {MAP("\"a\":\"..\\\\s\""), BG_ERR_FORMAT, "\"a\""},
        {MAP("\"a\":\"s-3.safetensors\""), BG_ERR_FILE, "\"s-3.safetensors\""},
        {MAP("\"a\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\""), BG_ERR_FORMAT, "\"b\""},
        {MAP("\"a\":\"s-1.safetensors\",\"z\":\"s-2.safetensors\""), BG_ERR_FORMAT, "\"z\""},
        {MAP("\"a\":\"s-2.safetensors\",\"b\":\"s-1.safetensors\""), BG_ERR_FORMAT, "\"a\""},
        {MAP("\"a\":\"s-1.safetensors\",\"a\":\"s-1.safetensors\""), BG_ERR_FORMAT, "duplicate"},
    };
    files_begin();
    write_shards();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        files_text("model.safetensors.index.json", cases[i].index);
        check_refused(cases[i].status, "model.safetensors.index.json", cases[i].place);
    }
    files_text("model.safetensors.index.json", index_good);
    /* one tensor in two shards */
    files_safetensors(
        "s-2.safetensors",
        "{" ENTRY("a", "F16", "[4]", "0", "8") "," ENTRY("b", "U8", "[8]", "8", "16") "}", 16);
    check_refused(BG_ERR_FORMAT, "s-2.safetensors", "\"a\" is also in");
    /* a damaged shard is named itself */
    files_text("s-2.safetensors", "short");
    check_refused(BG_ERR_FORMAT, "s-2.safetensors", "5 bytes");
    files_text("s-2.safetensors", "");
    check_refused(BG_ERR_FORMAT, "s-2.safetensors", "0 bytes");
    files_end();
}

static void test_bad_directory(void)
{
    bg_checkpoint *c;
    bg_error err = {0};
    files_begin();
    check_refused(BG_ERR_FILE, "config.json", "no such file");
    files_text("config.json", config);
    check_refused(BG_ERR_FILE, files_directory, "no weights");
    files_text("tf_model.h5", "\x89HDF");
    check_refused(BG_ERR_UNSUPPORTED, "tf_model.h5", "convert");
    files_text("pytorch_model.bin", "PK");
    check_refused(BG_ERR_FORMAT, "pytorch_model.bin", "2 bytes");
    files_text("model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
    check_refused(BG_ERR_UNSUPPORTED, "model.safetensors", "git lfs pull");
    files_safetensors("model.safetensors", "{}", 0);
    files_text("config.json", "[1]");
    check_refused(BG_ERR_FORMAT, "config.json", "JSON object");
    files_text("config.json", "");
    check_refused(BG_ERR_FORMAT, "config.json", "line 1");
    files_text("config.json", "{\"model_type\":\"gp");
    check_refused(BG_ERR_FORMAT, "config.json", "line 1");
    files_text("config.json", "{\"n\":1}\n{");
    check_refused(BG_ERR_FORMAT, "config.json", "line 2");
    files_text("config.json", config);
    /* named pipes are not waited for */
    files_remove("model.safetensors");
    CHECK(mkfifo(files_path("model.safetensors"), 0600) == 0, "mkfifo");
    check_refused(BG_ERR_FORMAT, "pytorch_model.bin", "2 bytes");
    CHECK(bg_checkpoint_open_file(files_path("model.safetensors"), &c, &err) == BG_ERR_FILE,
          "a pipe was opened");
    CHECK(strstr(err.message, "not a regular file"), "%s", err.message);

    CHECK(bg_checkpoint_open(files_path("config.json"), &c, &err) == BG_ERR_FILE, "a file");
    CHECK(strstr(err.message, "is a file, not a directory"), "%s", err.message);
    CHECK(bg_checkpoint_open("gpt2-that-is-not-here", &c, &err) == BG_ERR_FILE, "nothing");
    CHECK(strstr(err.message, "gpt2-that-is-not-here: there is no such directory") &&
              strstr(err.message, "download"),
          "%s", err.message);
    CHECK(bg_checkpoint_open("", &c, &err) == BG_ERR_FILE, "nothing");
    CHECK(bg_checkpoint_open_file("nothing.safetensors", &c, &err) == BG_ERR_FILE, "nothing");
    CHECK(strstr(err.message, "nothing.safetensors"), "%s", err.message);
    CHECK(bg_checkpoint_open("nowhere", &c, NULL) == BG_ERR_FILE, "without a bg_error");
    files_end();
}

static void test_large_config(void)
{
    enum { SIZE = 10 * 1024 * 1024 + 1 };
    char *text = malloc(SIZE);
    memset(text, ' ', SIZE);
    memcpy(text, "{}", 2);
    files_begin();
    files_safetensors("model.safetensors", "{}", 0);
    files_write("config.json", text, SIZE);
    bg_checkpoint *c;
    bg_error err = {0};
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_ERR_FORMAT, "11 MB are read");
    CHECK(strstr(err.message, "config.json") && strstr(err.message, "10485761 bytes"), "%s",
          err.message);
    files_write("config.json", text, SIZE - 1);
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_OK, "%s", err.message);
    bg_checkpoint_close(c);
    memset(text, '[', SIZE);
    files_write("config.json", text, SIZE - 1);
    check_refused(BG_ERR_FORMAT, "config.json", "depth");
    files_end();
    free(text);
}

/* Steps through every allocation of an open and an inspect. */
static void step_allocations(const char *path)
{
    long n = 0;
    for (bg_status status = BG_ERR_MEMORY; status != BG_OK && n < 10000; n++) {
        bg_checkpoint *c;
        bg_error err = {0};
        bg_alloc_fail_after(n);
        status = bg_checkpoint_open(path, &c, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "open, after %ld: %s", n, err.message);
        CHECK((status == BG_OK) == (c != NULL), "open, after %ld", n);
        bg_checkpoint_close(c);
    }
    CHECK(n > 20 && n < 10000, "%ld allocations", n);
    for (int json = 0; json < 2; json++) {
        bg_status status = BG_ERR_MEMORY;
        for (n = 0; status != BG_OK && n < 10000; n++) {
            char *text;
            bg_error err = {0};
            bg_alloc_fail_after(n);
            status = bg_inspect(path, json, &text, &err);
            bg_alloc_fail_after(-1);
            CHECK(status == BG_OK || status == BG_ERR_MEMORY, "inspect, after %ld: %s", n,
                  err.message);
            CHECK((status == BG_OK) == (text != NULL), "inspect, after %ld", n);
            bg_string_free(text);
        }
        CHECK(n > 20 && n < 10000, "%ld allocations", n);
    }
}

static void test_allocation_failures(void)
{
    files_begin();
    write_shards();
    step_allocations(files_directory);
    files_safetensors("model.safetensors", header_1, 16);
    step_allocations(files_directory);
    files_end();
}

static void test_inspect(void)
{
    char *text = NULL;
    bg_error err = {0};
    json_t *root = NULL;
    files_begin();
    write_shards();
    CHECK(bg_inspect(files_directory, true, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && bg_json_parse(text, strlen(text), "inspect", &root, &err) == BG_OK, "%s",
          err.message);
    CHECK_STRING(json_string_value(json_object_get(root, "path")), files_directory);
    CHECK(json_integer_value(json_object_get(root, "parameters")) == 8, "parameters");
    CHECK(json_array_size(json_object_get(root, "files")) == 2, "files");
    const json_t *config_json = json_object_get(root, "config");
    CHECK(json_integer_value(json_object_get(config_json, "n_embd")) == 256, "config");
    const json_t *c = json_array_get(json_object_get(root, "tensors"), 2);
    CHECK(json_is_object(c), "no third tensor");
    CHECK_STRING(json_string_value(json_object_get(c, "name")), "c");
    CHECK_STRING(json_string_value(json_object_get(c, "dtype")), "I64");
    CHECK_STRING(json_string_value(json_object_get(c, "file")), "s-2.safetensors");
    CHECK(json_integer_value(json_object_get(c, "bytes")) == 8, "bytes");
    CHECK(json_integer_value(json_array_get(json_object_get(c, "shape"), 0)) == 1, "shape");
    const json_t *sums = json_object_get(root, "bytes_by_dtype");
    CHECK(json_integer_value(json_object_get(sums, "F32")) == 16, "F32");
    CHECK(json_integer_value(json_object_get(sums, "F16")) == 8, "F16");
    CHECK(json_object_size(sums) == 3, "types");
    json_decref(root);
    bg_string_free(text);

    CHECK(bg_inspect(files_directory, false, &text, &err) == BG_OK, "%s", err.message);
    static const char *const lines[] = {"\n  model_type                 gpt2\n",
                                        "\n  a     F32   [2, 2]  16\n", "3 tensors, 8 parameters",
                                        "GPT2LMHeadModel", "format                   pt"};
    for (size_t i = 0; text && i < sizeof lines / sizeof *lines; i++)
        CHECK(strstr(text, lines[i]), "no \"%s\" in:\n%s", lines[i], text);
    bg_string_free(text);

    /* one file: no configuration; its names may not move the cursor */
    files_safetensors("x.safetensors",
                      "{" ENTRY("\\u001b[2J\\u009b\\n\xc3\xa9", "U8", "[2]", "0", "2") "}", 2);
    CHECK(bg_inspect(files_path("x.safetensors"), false, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && strstr(text, "  ?[2J??\xc3\xa9  U8 "), "%s", text);
    CHECK(text && !strstr(text, "Configuration"), "%s", text);
    bg_string_free(text);
    CHECK(bg_inspect(files_path("x.safetensors"), true, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && strstr(text, "\"\\u001B[2J"), "%s", text);
    CHECK(text && !strstr(text, "\"config\""), "%s", text);
    bg_string_free(text);

    /* a configuration alone */
    files_remove("model.safetensors.index.json");
    CHECK(bg_inspect(files_directory, false, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && strstr(text, "no weights"), "%s", text);
    bg_string_free(text);
    CHECK(bg_inspect(files_path("nowhere"), false, &text, &err) == BG_ERR_FILE, "nothing");
    CHECK(!text, "a text is left");
    files_end();
}

/* Bytes of a mapped file that are resident, by /proc/self/smaps. */
static long resident(const char *path)
{
    char line[512];
    long kilobytes = 0, value;
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (line[0] < 'A' || line[0] > 'Z') inside = strstr(line, path) != NULL;
        if (inside && sscanf(line, "Rss: %ld kB", &value) == 1) kilobytes += value;
    }
    if (file) fclose(file);
    return 1024 * kilobytes;
}

/* Of a file that is read tensor by tensor, no more stays in memory than the tensor being read. */
static void test_release(void)
{
    enum { SIZE = 6 << 20, BIAS = 4096 };
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    char header[512];
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[0,%d]},"
             "\"b\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
             "\"c\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]}}",
             SIZE, SIZE, BIAS, SIZE, SIZE + BIAS, SIZE, SIZE + BIAS, 2 * SIZE + BIAS);
    files_begin();
    files_safetensors("x.safetensors", header, 2 * SIZE + BIAS);
    const char *path = files_path("x.safetensors");
    bg_status status = bg_checkpoint_open_file(path, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    CHECK(resident(path) == 0, "%ld bytes after opening", resident(path));
    unsigned sum = 0;
    for (size_t i = 0; i < 3; i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        bg_checkpoint_prefetch(c, t);
        for (size_t k = 0; k < t->bytes; k += 511) sum += ((const uint8_t *)t->data)[k];
        CHECK(resident(path) >= (long)t->bytes, "%ld bytes while reading", resident(path));
        bg_checkpoint_release(c, t);
        CHECK(resident(path) == 0, "%ld bytes after %s", resident(path), t->name);
    }
    CHECK(sum > 0, "nothing was read");
    bg_checkpoint_close(c);
    files_end();
}

static void test_demo_decoder(void)
{
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    bg_status status = bg_checkpoint_open("models/demo-decoder", &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    CHECK(bg_checkpoint_count(c) == 76, "%zu tensors", bg_checkpoint_count(c));
    const bg_tensor *t = bg_checkpoint_find(c, "transformer.h.0.attn.c_attn.weight");
    CHECK(t && t->dtype == BG_F16 && t->rank == 2 && t->shape[0] == 256 && t->shape[1] == 768,
          "c_attn is not what it should be");
    CHECK(t && t->bytes == 256 * 768 * 2, "c_attn has the wrong size");
    for (size_t i = 0; i < bg_checkpoint_count(c); i++) {
        const bg_tensor *each = bg_checkpoint_tensor(c, i);
        CHECK(bg_checkpoint_find(c, each->name) == each, "%s is not found", each->name);
    }
    bg_checkpoint_close(c);
}

/* The shards that transformers wrote, if the models beside the repository are there. */
static void test_shared_shards(void)
{
    static const char path[] = "../shared/models/mini-llama";
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    if (access(path, R_OK) != 0) {
        SKIP("%s is not there", path);
        return;
    }
    bg_status status = bg_checkpoint_open(path, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    CHECK(bg_checkpoint_count(c) == 56 && bg_checkpoint_file_count(c) == 3, "%zu tensors",
          bg_checkpoint_count(c));
    bg_checkpoint_close(c);
}

int main(void)
{
    RUN(test_single_file);
    RUN(test_shards);
    RUN(test_bad_index);
    RUN(test_bad_directory);
    RUN(test_large_config);
    RUN(test_allocation_failures);
    RUN(test_inspect);
    RUN(test_release);
    RUN(test_demo_decoder);
    RUN(test_shared_shards);
    return test_finish();
}
