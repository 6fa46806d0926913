/* Ids and decoded texts against Hugging Face `tokenizers`: texts.json, made by make_reference.py.
 */
#include "test.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

static json_t *reference;

/* Like bg_json_load, but strings may hold NULs. */
static json_t *load(const char *path)
{
    bg_mapping map;
    bg_error err;
    json_error_t problem;
    if (bg_map_file(path, &map, &err) != BG_OK) {
        printf("%s\n", err.message);
        return NULL;
    }
    json_t *root = json_loadb((const char *)map.data, map.size, JSON_ALLOW_NUL, &problem);
    bg_unmap(&map);
    return root;
}

static const json_t *at(const json_t *array, size_t i)
{
    return json_array_get(array, i);
}

/* The ids as text, for messages. */
static const char *spell(const int32_t *ids, const json_t *json, size_t n)
{
    static char text[2][256];
    char *out = text[json != NULL];
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && used < 200; i++)
        used += (size_t)snprintf(out + used, 256 - used, "%d ",
                                 json ? (int)json_integer_value(at(json, i)) : (int)ids[i]);
    return out;
}

static void check_ids(const char *what, size_t number, bg_status status, const bg_error *err,
                      const int32_t *ids, size_t n, const json_t *expected)
{
    CHECK(status == BG_OK, "%s, text %zu: %s", what, number, err->message);
    if (status != BG_OK) return;
    bool same = n == json_array_size(expected);
    for (size_t i = 0; same && i < n; i++) same = ids[i] == json_integer_value(at(expected, i));
    CHECK(same, "%s, text %zu: got %s, expected %s", what, number, spell(ids, NULL, n),
          spell(NULL, expected, json_array_size(expected)));
}

static void check_encode(const char *what, size_t number, const bg_tokenizer *t, const json_t *text,
                         bool special, const json_t *expected)
{
    bg_error err = {0};
    int32_t *ids;
    size_t n;
    bg_status status = bg_tokenizer_encode(t, json_string_value(text), json_string_length(text),
                                           special, &ids, &n, &err);
    check_ids(what, number, status, &err, ids, n, expected);
    bg_ids_free(ids);
}

static void check_decode(const char *what, size_t number, const bg_tokenizer *t, const json_t *list,
                         bool skip, const json_t *expected)
{
    bg_error err = {0};
    size_t n = json_array_size(list), size = 0;
    char *text = NULL;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    for (size_t i = 0; ids && i < n; i++) ids[i] = (int32_t)json_integer_value(at(list, i));
    bg_status status = bg_tokenizer_decode(t, ids, n, skip, &text, &size, &err);
    CHECK(status == BG_OK, "%s: %s", what, err.message);
    CHECK(text && size == json_string_length(expected) &&
              memcmp(text, json_string_value(expected), size) == 0,
          "%s, text %zu: got \"%s\", expected \"%s\"", what, number, text,
          json_string_value(expected));
    bg_string_free(text);
    free(ids);
}

static bg_tokenizer *open_first(const char *first, const char *second)
{
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    bg_status status = bg_tokenizer_open(bg_is_directory(first) ? first : second, &t, &err);
    if (status == BG_OK) return t;
    CHECK(status == BG_ERR_FILE && !bg_is_directory(second), "%s", err.message);
    SKIP("neither %s nor %s is there", first, second);
    return NULL;
}

static void demo_tokenizers(void)
{
    const json_t *texts = json_object_get(reference, "demo_texts"), *demo;
    size_t d;
    json_array_foreach(json_object_get(reference, "demo"), d, demo)
    {
        char first[128], second[128];
        const char *name = json_string_value(json_object_get(demo, "name"));
        snprintf(first, sizeof first, "models/%s", name);
        snprintf(second, sizeof second, "../shared/models/%s",
                 json_string_value(json_object_get(demo, "fallback")));
        bg_tokenizer *t = open_first(first, second);
        const json_t *row;
        size_t i;
        if (!t) continue;
        json_array_foreach(json_object_get(demo, "texts"), i, row)
        {
            check_encode(name, i, t, at(texts, i), true, at(row, 0));
            check_encode(name, i, t, at(texts, i), false, at(row, 2));
            check_decode(name, i, t, at(row, 0), false, at(row, 1));
        }
        json_array_foreach(json_object_get(demo, "decode"), i, row)
        {
            check_decode(name, i, t, at(row, 0), false, at(row, 1));
            check_decode(name, i, t, at(row, 0), true, at(row, 2));
        }
        json_array_foreach(json_object_get(demo, "truncated"), i, row)
        {
            bg_error err = {0};
            int32_t *ids;
            size_t n;
            bg_status status = bg_tokenizer_encode_truncated(
                t, json_string_value(at(row, 1)), json_string_length(at(row, 1)), true,
                (size_t)json_integer_value(at(row, 0)), &ids, &n, &err);
            check_ids("truncated", i, status, &err, ids, n, at(row, 2));
            bg_ids_free(ids);
        }
        bg_tokenizer_close(t);
    }
}

static void components(void)
{
    const json_t *texts = json_object_get(reference, "texts"), *c, *row;
    size_t k, i;
    json_array_foreach(json_object_get(reference, "components"), k, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        json_t *config = json_object_get(c, "tokenizer");
        json_t *model = json_object_get(json_object_get(reference, "models"),
                                        json_string_value(json_object_get(config, "model")));
        json_object_set(config, "model", model);
        char *json = json_dumps(config, JSON_COMPACT);
        bg_tokenizer *t = NULL;
        bg_error err = {0};
        bg_status status = bg_tokenizer_parse(json, strlen(json), name, &t, &err);
        CHECK(status == BG_OK, "%s: %s", name, err.message);
        bg_free(json);
        if (!t) continue;
        const json_t *ids = json_object_get(c, "ids"), *decoded = json_object_get(c, "decoded");
        const json_t *skipped = json_object_get(c, "skipped");
        CHECK(json_array_size(ids) == json_array_size(texts), "%s", name);
        json_array_foreach(ids, i, row)
        {
            check_encode(name, i, t, at(texts, i), true, row);
            if (decoded) check_decode(name, i, t, row, false, at(decoded, i));
            if (skipped) check_decode(name, i, t, row, true, at(skipped, i));
        }
        json_array_foreach(json_object_get(c, "decode"), i, row)
        {
            check_decode(name, i, t, at(row, 0), false, at(row, 1));
        }
        bg_tokenizer_close(t);
    }
}

static uint64_t fnv(uint64_t hash, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ ((uint32_t)ids[i] >> shift & 255)) * 0x100000001B3u;
    return hash;
}

static void wikitext(void)
{
    static const char path[] = "../shared/data/wikitext-2-raw/wiki.test.raw";
    bg_mapping map;
    const json_t *row;
    size_t i;
    if (bg_map_file(path, &map, NULL) != BG_OK) {
        SKIP("%s is not there", path);
        return;
    }
    const char *text = (const char *)map.data, *end = text + map.size;
    json_array_foreach(json_object_get(reference, "digests"), i, row)
    {
        char directory[128], digest[17];
        const char *name = json_string_value(json_object_get(row, "tokenizer"));
        const char *mode = json_string_value(json_object_get(row, "mode"));
        bool lines = strcmp(mode, "lines") == 0;
        snprintf(directory, sizeof directory, "../shared/tokenizers/%s", name);
        bg_tokenizer *t = open_first(directory, directory);
        if (!t) continue;
        uint64_t hash = 0xCBF29CE484222325u;
        size_t count = 0, n;
        for (const char *p = text; p <= end;) {
            const char *stop = lines ? memchr(p, '\n', (size_t)(end - p)) : NULL;
            if (!stop) stop = end;
            bg_error err = {0};
            int32_t *ids;
            CHECK(bg_tokenizer_encode(t, p, (size_t)(stop - p), true, &ids, &n, &err) == BG_OK,
                  "%s", err.message);
            hash = fnv(hash, ids, n);
            count += n;
            bg_ids_free(ids);
            p = stop + 1;
        }
        CHECK(count == (size_t)json_integer_value(json_object_get(row, "count")), "%s, %s: %zu ids",
              name, mode, count);
        snprintf(digest, sizeof digest, "%016llx", (unsigned long long)hash);
        CHECK_STRING(digest, json_string_value(json_object_get(row, "fnv")));
        bg_tokenizer_close(t);
    }
    bg_unmap(&map);
}

/* What was recorded beside the shared models. */
static void shared_models(void)
{
    static const char path[] = "../shared/reference/tokenizers.json";
    json_t *recorded = bg_file_exists(path) ? load(path) : NULL, *texts, *row;
    const char *name;
    size_t i;
    if (!recorded) SKIP("%s is not there", path);
    json_object_foreach(recorded, name, texts)
    {
        char directory[128];
        snprintf(directory, sizeof directory, "../shared/models/%s", name);
        bg_tokenizer *t = open_first(directory, directory);
        json_array_foreach(texts, i, row)
        {
            const json_t *ids = json_object_get(row, "ids");
            if (!t) break;
            check_encode(name, i, t, json_object_get(row, "text"), true, ids);
            check_decode(name, i, t, ids, false, json_object_get(row, "decoded"));
        }
        bg_tokenizer_close(t);
    }
    json_decref(recorded);
}

static void special_tokens(void)
{
    bg_tokenizer *t = open_first("models/demo-classifier", "../shared/models/mini-distilbert-sst2");
    if (t) {
        CHECK(bg_tokenizer_special(t, BG_TOKEN_PAD) == 0);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_UNK) == 1);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_CLS) == 2);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_SEP) == 3);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_MASK) == 4);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_EOS) == -1);
        CHECK(bg_tokenizer_vocab_size(t) == 8192, "%zu", bg_tokenizer_vocab_size(t));
        CHECK(bg_tokenizer_token(t, -1) == NULL && bg_tokenizer_token(t, 8192) == NULL);
        CHECK_STRING(bg_tokenizer_token(t, 2), "[CLS]");
        CHECK(bg_tokenizer_id(t, "[MASK]") == 4 && bg_tokenizer_id(t, "no such token") == -1);
        bg_tokenizer_close(t);
    }
    t = open_first("models/demo-decoder", "../shared/models/mini-gpt2");
    if (t) {
        CHECK(bg_tokenizer_special(t, BG_TOKEN_EOS) == 0);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_BOS) == 0);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_PAD) == 0);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_CLS) == -1);
        bg_tokenizer_close(t);
    }
}

int main(void)
{
    bg_json_init();
    reference = load("tests/tokenizer/texts.json");
    CHECK(reference != NULL, "tests/tokenizer/texts.json cannot be read");
    RUN(demo_tokenizers);
    RUN(components);
    RUN(wikitext);
    RUN(shared_models);
    RUN(special_tokens);
    json_decref(reference);
    return test_finish();
}
