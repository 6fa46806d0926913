/* SentencePiece files: read as they are written, refused where they are cut or changed. What the
 * tokenizers made of them do with texts is in test_kinds.c. */
#include "test.h"

#include "core/alloc.h"
#include "core/file.h"
#include "tokenizer/internal.h"
#include "tokenizer/sentencepiece.h"

#include <stdlib.h>

static const char llama[] = "tests/fixtures/tokenizers/llama/tokenizer.model";
static const char xlm[] = "tests/fixtures/tokenizers/xlm-roberta/sentencepiece.bpe.model";

static void contents(void)
{
    bg_mapping map;
    bg_error err = {0};
    bg_sentencepiece_model m = {0};
    CHECK(bg_map_file(llama, &map, &err) == BG_OK, "%s", err.message);
    bg_status status = bg_sentencepiece_parse(map.data, map.size, llama, &m, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        CHECK(m.bpe && m.byte_fallback && m.unknown == 0 && m.n == 800, "%zu", m.n);
        CHECK(m.add_dummy_prefix && !m.remove_extra_whitespaces && m.escape_whitespaces);
        CHECK(m.charsmap.at == m.charsmap.end);
        CHECK(m.pieces[1].kind == BG_PIECE_CONTROL && m.pieces[3].kind == BG_PIECE_BYTE);
        CHECK(m.pieces[1].size == 3 && memcmp(m.pieces[1].text, "<s>", 3) == 0);
        CHECK(m.pieces[300].kind == BG_PIECE_NORMAL && m.pieces[300].score < 0);
    }
    bg_sentencepiece_free(&m);
    bg_unmap(&map);
    CHECK(bg_map_file(xlm, &map, &err) == BG_OK, "%s", err.message);
    status = bg_sentencepiece_parse(map.data, map.size, xlm, &m, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status == BG_OK) {
        CHECK(!m.bpe && !m.byte_fallback && m.remove_extra_whitespaces);
        CHECK(m.charsmap.end - m.charsmap.at > 100);
    }
    bg_sentencepiece_free(&m);
    bg_unmap(&map);
}

/* The whole way from a file's bytes to ids and back. */
static bg_status use(const uint8_t *data, size_t size, bg_error *err)
{
    static const char text[] =
        "The tide <s> caf\xc3\xa9 e\xcc\x81 \xef\xac\x81  \xe6\x9d\xb1\xf0\x9f\x98\x80";
    bg_tokenizer *t = bg_tokenizer_new();
    if (!t) return bg_fail_memory(err, 0, "a tokenizer");
    bg_status status = bg_tokenizer_read_sentencepiece(data, size, NULL, "test.model", t, err);
    int32_t *ids = NULL;
    size_t n = 0;
    char *decoded = NULL;
    if (status == BG_OK)
        status = bg_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &n, err);
    if (status == BG_OK) status = bg_tokenizer_decode(t, ids, n, false, &decoded, NULL, err);
    bg_string_free(decoded);
    bg_ids_free(ids);
    bg_tokenizer_close(t);
    return status;
}

static void cut_and_changed_file(const char *path)
{
    bg_mapping map;
    bg_error err = {0};
    CHECK(bg_map_file(path, &map, &err) == BG_OK, "%s", err.message);
    CHECK(use(map.data, map.size, &err) == BG_OK, "%s", err.message);
    size_t refused = 0;
    for (size_t n = 0; n < map.size; n += 1 + n / 64) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a read past the end is noticed */
        memcpy(exact, map.data, n);
        bg_status status = use(exact, n, &err);
        CHECK(status == BG_OK || status == BG_ERR_FORMAT, "cut at %zu: %s", n, err.message);
        refused += status != BG_OK;
        free(exact);
    }
    CHECK(refused > 50, "%zu", refused);
    uint8_t *copy = malloc(map.size);
    for (size_t n = 0; n < map.size; n += 1 + n / 64) {
        for (int change = 0; change < 3; change++) {
            memcpy(copy, map.data, map.size);
            copy[n] = (uint8_t)(change == 0 ? 0xFF : change == 1 ? copy[n] ^ 1 : 0);
            bg_status status = use(copy, map.size, &err);
            CHECK(status == BG_OK || status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED,
                  "byte %zu: %s", n, err.message);
        }
    }
    free(copy);
    bg_unmap(&map);
}

static void cut_and_changed(void)
{
    cut_and_changed_file(llama);
    cut_and_changed_file(xlm);
}

#define UNKNOWN "\x0a\x09\x0a\x05<unk>\x18\x02"

static const struct {
    const char *bytes;
    size_t size;
    bg_status status;
    const char *says;
} wrong[] = {
#define ROW(bytes, status, says)                                                                   \
    {                                                                                              \
        bytes, sizeof(bytes) - 1, status, says                                                     \
    }
    ROW("", BG_ERR_FORMAT, "no pieces"),
    ROW(UNKNOWN, BG_OK, ""),
    ROW("\x0a\x03\x0a\x01"
        "a",
        BG_ERR_FORMAT, "unknown one"),
    ROW(UNKNOWN "\x0a\x7f", BG_ERR_FORMAT, "cut short"),
    ROW(UNKNOWN "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", BG_ERR_FORMAT, "cut short"),
    ROW(UNKNOWN "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", BG_ERR_FORMAT, "cut short"),
    ROW(UNKNOWN "\x0b", BG_ERR_FORMAT, "cut short"),         /* a group */
    ROW(UNKNOWN "\x00\x00", BG_ERR_FORMAT, "cut short"),     /* field number 0 */
    ROW(UNKNOWN "\x0a\x02\x0a\x00", BG_ERR_FORMAT, "empty"), /* a piece without text */
    ROW(UNKNOWN "\x0a\x03\x0a\x01\xff", BG_ERR_FORMAT, "UTF-8"),
    ROW(UNKNOWN "\x0a\x03\x0a\x01\x00", BG_ERR_FORMAT, "UTF-8"),
    ROW(UNKNOWN "\x0a\x05\x0a\x01\x61\x18\x09", BG_ERR_FORMAT, "type"),
    ROW(UNKNOWN "\x0a\x08\x0a\x01\x61\x15\x00\x00\xc0\x7f", BG_ERR_FORMAT, "score"),
    ROW(UNKNOWN "\x0a\x06\x0a\x01\x61\x15\x00\x00", BG_ERR_FORMAT, "cut short"),
    ROW(UNKNOWN "\x12\x02\x18\x03", BG_ERR_UNSUPPORTED, "type 3"), /* a model of words */
    ROW(UNKNOWN "\x1a\x03\x12\x01x", BG_ERR_FORMAT, "character map"),
};

static void wrong_files(void)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bg_error err = {0};
        bg_tokenizer *t = bg_tokenizer_new();
        bg_status status = bg_tokenizer_read_sentencepiece(
            (const uint8_t *)wrong[i].bytes, wrong[i].size, NULL, "test.model", t, &err);
        CHECK(status == wrong[i].status, "row %zu: status %d: %s", i, status, err.message);
        CHECK(status == BG_OK || strstr(err.message, wrong[i].says), "row %zu: %s", i, err.message);
        bg_tokenizer_close(t);
    }
}

static void out_of_memory(void)
{
    const char *const paths[] = {llama, xlm};
    for (int p = 0; p < 2; p++) {
        bg_mapping map;
        CHECK(bg_map_file(paths[p], &map, NULL) == BG_OK);
        for (long n = 0;; n++) {
            bg_error err = {0};
            bg_alloc_fail_after(n);
            bg_status status = use(map.data, map.size, &err);
            bool enough = bg_alloc_count() <= n;
            bg_alloc_fail_after(-1);
            CHECK(status == (enough ? BG_OK : BG_ERR_MEMORY), "allocation %ld: %d, %s", n, status,
                  err.message);
            if (enough || n > 10000) break;
        }
        bg_unmap(&map);
    }
}

int main(void)
{
    bg_json_init();
    RUN(contents);
    RUN(wrong_files);
    RUN(cut_and_changed);
    RUN(out_of_memory);
    return test_finish();
}
