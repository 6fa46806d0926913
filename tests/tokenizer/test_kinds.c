/* Every kind of tokenizer against the Hugging Face libraries: the small tokenizers and the
 * reference in tests/fixtures/tokenizers, made by make_tokenizers.py there. */
#include "test.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"
#include "tokenizer/tokenizer.h"

#define FIXTURES "tests/fixtures/tokenizers/"

static json_t *reference;

static const json_t *at(const json_t *array, size_t i)
{
    return json_array_get(array, i);
}

static void hash(const void *data, size_t n, char out[17])
{
    uint64_t value = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) value = (value ^ ((const uint8_t *)data)[i]) * 0x100000001B3u;
    snprintf(out, 17, "%016llx", (unsigned long long)value);
}

/* The expected ids are a list, or the hash of one. */
static bool same_ids(const int32_t *ids, size_t n, const json_t *expected)
{
    char digest[17];
    hash(ids, n * sizeof *ids, digest);
    if (json_is_string(expected)) return strcmp(digest, json_string_value(expected)) == 0;
    if (json_array_size(expected) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(at(expected, i))) return false;
    return true;
}

/* The expected text is written out, or its hash, or 0: the text that was encoded. */
static bool same_text(const char *text, size_t size, const json_t *expected, const json_t *source)
{
    char digest[17];
    const json_t *whole = json_is_string(expected) ? expected : source;
    if (size == json_string_length(whole) && memcmp(text, json_string_value(whole), size) == 0)
        return true;
    hash(text, size, digest);
    return json_is_string(expected) && strcmp(digest, json_string_value(expected)) == 0;
}

static void spell(const int32_t *ids, size_t n, const json_t *expected, bg_text *out)
{
    bg_text_puts(out, "got");
    for (size_t i = 0; i < n && i < 16; i++) bg_text_printf(out, " %d", (int)ids[i]);
    char *json = json_dumps(expected, JSON_ENCODE_ANY | JSON_COMPACT);
    bg_text_printf(out, ", expected %s", json ? json : "?");
    bg_free(json);
}

static void check_text(const char *name, size_t number, const bg_tokenizer *t, const json_t *text,
                       const json_t *kind)
{
    const json_t *expected = at(json_object_get(kind, "ids"), number);
    const json_t *decoded[2] = {json_object_get(kind, "decoded"), json_object_get(kind, "skipped")};
    bg_error err = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    if (json_is_null(expected)) return; /* the reference is of no use for this text */
    bg_status status = bg_tokenizer_encode(t, json_string_value(text), json_string_length(text),
                                           true, &ids, &n, &err);
    CHECK(status == BG_OK, "%s, text %zu: %s", name, number, err.message);
    bool same = status == BG_OK && same_ids(ids, n, expected);
    if (!same) {
        bg_text message = {0};
        spell(ids, n, expected, &message);
        CHECK(same, "%s, text %zu: %.300s", name, number, message.data);
        bg_text_free(&message);
    }
    for (int skip = 0; same && skip < 2; skip++) {
        char *out = NULL;
        size_t size = 0;
        if (!json_array_size(decoded[skip])) continue;
        status = bg_tokenizer_decode(t, ids, n, skip, &out, &size, &err);
        CHECK(status == BG_OK && same_text(out, size, at(decoded[skip], number), text),
              "%s, text %zu decoded: %.100s", name, number, out ? out : err.message);
        bg_string_free(out);
    }
    bg_ids_free(ids);
}

static bool same_row(const bg_encoding *row, const json_t *ids, const json_t *types,
                     const json_t *mask)
{
    bool same = json_array_size(ids) == row->n;
    for (size_t i = 0; same && i < row->n; i++)
        same = row->ids[i] == json_integer_value(at(ids, i)) &&
               row->type_ids[i] == json_integer_value(at(types, i)) &&
               row->attention_mask[i] == (mask ? json_integer_value(at(mask, i)) : 1);
    return same;
}

static bg_tokenizer_input input(const json_t *pair, bool second)
{
    const json_t *a = at(pair, 0), *b = at(pair, 1);
    return (bg_tokenizer_input){.text = json_string_value(a),
                                .size = json_string_length(a),
                                .pair = second ? json_string_value(b) : NULL,
                                .pair_size = second ? json_string_length(b) : 0};
}

static void check_pairs(const char *name, const bg_tokenizer *t, const json_t *kind)
{
    static const bg_encode_options plain = {.add_special = true};
    const json_t *expected;
    size_t i;
    json_array_foreach(json_object_get(kind, "pairs"), i, expected)
    {
        bg_tokenizer_input pair = input(at(json_object_get(reference, "pairs"), i), true);
        bg_encoding *row = NULL;
        bg_error err = {0};
        bg_status status = bg_tokenizer_encode_batch(t, &pair, 1, &plain, &row, &err);
        CHECK(status == BG_OK && same_row(row, at(expected, 0), at(expected, 1), NULL),
              "%s, pair %zu: %s", name, i, err.message);
        bg_encodings_free(row, status == BG_OK);
    }
}

static void check_batches(const char *name, const bg_tokenizer *t, const json_t *kind)
{
    static const bg_encode_options all = {.add_special = true, .truncate = true, .pad = true};
    const json_t *batch;
    size_t i;
    json_array_foreach(json_object_get(kind, "batch"), i, batch)
    {
        const json_t *numbers = json_object_get(batch, "inputs");
        const json_t *rows = json_object_get(batch, "rows");
        bool pair = json_is_true(json_object_get(batch, "pair"));
        size_t n = json_array_size(numbers);
        bg_tokenizer_input inputs[64];
        bg_encoding *out = NULL;
        bg_error err = {0};
        CHECK(n > 0 && n <= 64);
        for (size_t j = 0; j < n; j++)
            inputs[j] = input(
                at(json_object_get(reference, "pairs"), (size_t)json_integer_value(at(numbers, j))),
                pair);
        bg_status status = bg_tokenizer_encode_batch(t, inputs, n, &all, &out, &err);
        CHECK(status == BG_OK, "%s: %s", name, err.message);
        for (size_t j = 0; status == BG_OK && j < n; j++)
            CHECK(same_row(&out[j], at(at(rows, j), 0), at(at(rows, j), 1), at(at(rows, j), 2)),
                  "%s, row %zu of batch %zu", name, j, i);
        if (status == BG_OK) bg_encodings_free(out, n);
    }
}

static void kinds(void)
{
    const json_t *list = json_object_get(reference, "tokenizers"), *kind, *text;
    const json_t *texts = json_object_get(reference, "texts");
    size_t k, i;
    CHECK(json_array_size(list) >= 18 && json_array_size(texts) >= 150);
    json_array_foreach(list, k, kind)
    {
        char directory[256];
        const char *name = json_string_value(json_object_get(kind, "name"));
        bg_tokenizer *t = NULL;
        bg_error err = {0};
        snprintf(directory, sizeof directory, FIXTURES "%s", name);
        bg_status status = bg_tokenizer_open(directory, &t, &err);
        CHECK(status == BG_OK, "%s: %s", name, err.message);
        if (status != BG_OK) continue;
        CHECK(json_array_size(json_object_get(kind, "ids")) == json_array_size(texts));
        json_array_foreach(texts, i, text)
        {
            check_text(name, i, t, text, kind);
        }
        check_pairs(name, t, kind);
        check_batches(name, t, kind);
        bg_tokenizer_close(t);
    }
}

static void special_tokens(void)
{
    static const struct {
        const char *name;
        int32_t ids[BG_TOKEN_COUNT]; /* bos eos unk pad cls sep mask */
    } expected[] = {
        {"llama", {1, 2, 0, -1, -1, -1, -1}},     {"llama-legacy", {1, 2, 0, 803, -1, -1, -1}},
        {"gemma", {2, 1, 3, 0, -1, -1, 4}},       {"t5", {-1, 1, 2, 0, -1, -1, -1}},
        {"xlm-roberta", {0, 2, 3, 1, 0, 2, 701}}, {"plain-unigram", {1, 2, 0, -1, -1, -1, -1}},
        {"bert", {-1, -1, 1, 0, 2, 3, 4}},        {"word-level", {-1, -1, 0, 1, -1, -1, -1}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char directory[256];
        bg_tokenizer *t = NULL;
        bg_error err = {0};
        snprintf(directory, sizeof directory, FIXTURES "%s", expected[i].name);
        CHECK(bg_tokenizer_open(directory, &t, &err) == BG_OK, "%s", err.message);
        for (int which = 0; t && which < BG_TOKEN_COUNT; which++)
            CHECK(bg_tokenizer_special(t, which) == expected[i].ids[which], "%s, %d: %d",
                  expected[i].name, which, (int)bg_tokenizer_special(t, which));
        bg_tokenizer_close(t);
    }
}

int main(void)
{
    json_error_t problem;
    bg_mapping map;
    bg_error err = {0};
    bg_json_init();
    if (bg_map_file(FIXTURES "reference.json", &map, &err) == BG_OK) {
        reference = json_loadb((const char *)map.data, map.size, JSON_ALLOW_NUL, &problem);
        bg_unmap(&map);
    }
    CHECK(reference != NULL, FIXTURES "reference.json cannot be read: %s", err.message);
    RUN(kinds);
    RUN(special_tokens);
    json_decref(reference);
    return test_finish();
}
