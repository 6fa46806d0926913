/* Files that lie, texts that are none, and memory that runs out: each ends in an error that says
 * so, and nothing else happens. */
#include "test.h"

#include "core/alloc.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <unistd.h>

/* Small, but with a part of every kind. */
static const char small[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":9,\"content\":\"[X]\",\"special\":true,"
    "\"lstrip\":true},{\"id\":10,\"content\":\"The\",\"normalized\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
    "\"Lowercase\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},"
    "{\"type\":\"BertNormalizer\",\"lowercase\":true}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
    "{\"String\":\"-\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":"
    "true}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"[X]\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"[X]\":{\"ids\":[9]}}},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\"},{\"type\":\"Fuse\"}"
    "]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3,"
    "\"\\u0120\":4,\"\\u0120ab\":5,\"t\":6,\"h\":7,\"e\":8},"
    "\"merges\":[\"a b\",[\"\\u0120\",\"ab\"]]}}";

static bg_status parse(const char *json, size_t size, bg_error *err)
{
    bg_tokenizer *t = NULL;
    bg_status status = bg_tokenizer_parse(json, size, "test.json", &t, err);
    CHECK((status == BG_OK) == (t != NULL));
    bg_tokenizer_close(t);
    return status;
}

static void small_works(void)
{
    static const int32_t expected[] = {9, 5, 4, 0, 4, 1, 9, 10};
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    int32_t *ids;
    size_t n;
    CHECK(bg_tokenizer_parse(small, strlen(small), "test.json", &t, &err) == BG_OK, "%s",
          err.message);
    if (!t) return;
    CHECK(bg_tokenizer_encode(t, "AB-A  [X]the", 12, true, &ids, &n, &err) == BG_OK, "%s",
          err.message);
    /* The template's [X]; " ab", " -", " a", each given a space; the text's [X] with the spaces
     * before it; and "The", which is looked for after lower-casing. */
    CHECK(n == 8 && memcmp(ids, expected, sizeof expected) == 0, "%zu ids", n);
    bg_ids_free(ids);
    bg_tokenizer_close(t);
}

/* A file cut anywhere is an error; one changed anywhere is an error or another tokenizer. */
static void cut_and_changed(void)
{
    bg_error err = {0};
    size_t size = strlen(small);
    char *copy = malloc(size);
    for (size_t n = 0; n < size; n++) {
        memcpy(copy, small, n);
        char *exact = malloc(n ? n : 1); /* so that a read past the end is noticed */
        memcpy(exact, small, n);
        CHECK(parse(exact, n, &err) == BG_ERR_FORMAT, "cut at %zu", n);
        free(exact);
    }
    static const char changes[] = "0\"{}[]:,x\\\xff";
    for (size_t n = 0; n < size; n++) {
        for (const char *c = changes; *c; c++) {
            memcpy(copy, small, size);
            copy[n] = *c;
            bg_status status = parse(copy, size, &err);
            CHECK(status == BG_OK || status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED,
                  "byte %zu: status %d", n, status);
        }
    }
    free(copy);
}

#define MODEL(rest) "{\"model\":{\"type\":\"BPE\"," rest "}}"
#define UNIGRAM(item, unk)                                                                         \
    "{\"model\":{\"type\":\"Unigram\",\"vocab\":[" item "],\"unk_id\":" unk "}}"
#define CHARSMAP(base64) "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" base64 "\"}"
#define PLAIN            "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}"

static const struct {
    const char *json;
    bg_status status;
    const char *says; /* part of the message */
} wrong[] = {
    {"[]", BG_ERR_FORMAT, "not a JSON object"},
    {"{}", BG_ERR_FORMAT, "\"model\""},
    {"{\"model\":3}", BG_ERR_FORMAT, "\"model\""},
    {"{\"model\":{\"type\":3}}", BG_ERR_FORMAT, "\"type\""},
    {"{\"model\":{\"type\":\"Magic\"}}", BG_ERR_UNSUPPORTED, "\"Magic\""},
    {MODEL("\"merges\":[]"), BG_ERR_FORMAT, "vocabulary"},
    {MODEL("\"vocab\":{}"), BG_ERR_FORMAT, "\"merges\""},
    {MODEL("\"vocab\":[],\"merges\":[]"), BG_ERR_FORMAT, "vocabulary"},
    {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), BG_ERR_FORMAT, "\"a\""},
    {MODEL("\"vocab\":{\"a\":16777216},\"merges\":[]"), BG_ERR_FORMAT, "16777215"},
    {MODEL("\"vocab\":{\"a\":9223372036854775807},\"merges\":[]"), BG_ERR_FORMAT, "\"a\""},
    {MODEL("\"vocab\":{\"a\":1.5},\"merges\":[]"), BG_ERR_FORMAT, "\"a\""},
    {MODEL("\"vocab\":{\"a\":\"1\"},\"merges\":[]"), BG_ERR_FORMAT, "\"a\""},
    {MODEL("\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]"), BG_ERR_FORMAT, "same id 1"},
    {MODEL("\"vocab\":{\"a\":1,\"a\":2},\"merges\":[]"), BG_ERR_FORMAT, "JSON"},
    {MODEL("\"vocab\":{\"a\":1},\"merges\":[\"a b\"]"), BG_ERR_FORMAT, "not in the vocabulary"},
    {MODEL("\"vocab\":{\"a\":1,\"b\":2},\"merges\":[[\"a\",\"b\"]]"), BG_ERR_FORMAT, "merge 0"},
    {MODEL("\"vocab\":{\"a\":1},\"merges\":[\"aa\"]"), BG_ERR_FORMAT, "two tokens"},
    {MODEL("\"vocab\":{\"a\":1},\"merges\":[\"a a a\"]"), BG_ERR_FORMAT, "two tokens"},
    {MODEL("\"vocab\":{\"a\":1},\"merges\":[[\"a\"]]"), BG_ERR_FORMAT, "merge 0"},
    {MODEL("\"vocab\":{\"a\":1},\"merges\":[7]"), BG_ERR_FORMAT, "merge 0"},
    {"{" PLAIN ",\"normalizer\":7}", BG_ERR_FORMAT, "\"normalizer\""},
    {"{" PLAIN ",\"normalizer\":{\"type\":\"Precompiled\"}}", BG_ERR_FORMAT,
     "character map is cut short"},
    {"{" PLAIN ",\"normalizer\":{\"type\":\"Odd\"}}", BG_ERR_UNSUPPORTED,
     "normalizer type \"Odd\""},
    {"{" PLAIN ",\"normalizer\":{\"type\":\"Sequence\"}}", BG_ERR_FORMAT, "\"normalizers\""},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Odd\"}}", BG_ERR_UNSUPPORTED, "\"Odd\""},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\"}}", BG_ERR_FORMAT,
     "\"Odd\""},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\"}}", BG_ERR_FORMAT,
     "\"pattern\""},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":"
     "{\"Regex\":\"(\"}}}",
     BG_ERR_FORMAT, "cannot be compiled"},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":"
     "{\"Regex\":\"[a&&b]\"}}}",
     BG_ERR_UNSUPPORTED, "set operation"},
    {"{" PLAIN ",\"decoder\":{\"type\":\"Odd\"}}", BG_ERR_UNSUPPORTED, "decoder type \"Odd\""},
    {"{" PLAIN ",\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\"}}", BG_ERR_FORMAT,
     "one character"},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"Odd\"}}", BG_ERR_UNSUPPORTED, "\"Odd\""},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}",
     BG_ERR_FORMAT, "no place for a text"},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\""
     ":{\"id\":\"x\"}},{\"Sequence\":{\"id\":\"A\"}}]}}",
     BG_ERR_FORMAT, "\"x\""},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",-1],\"sep\":[]}}",
     BG_ERR_FORMAT, "\"cls\""},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":"
     "{\"id\":\"B\"}}]}}",
     BG_ERR_FORMAT, "neither a special token"},
    {"{" PLAIN ",\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":"
     "\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"a\",0]},{\"type\":\"RobertaProcessing\","
     "\"cls\":[\"a\",0],\"sep\":[\"a\",0]}]}}",
     BG_ERR_UNSUPPORTED, "more than once"},
    {"{\"model\":{\"type\":\"Unigram\"}}", BG_ERR_FORMAT, "array of at most"},
    {UNIGRAM("[\"a\"]", "0"), BG_ERR_FORMAT, "item 0"},
    {UNIGRAM("[\"a\",\"b\"]", "0"), BG_ERR_FORMAT, "item 0"},
    {UNIGRAM("[\"a\",-1]", "1"), BG_ERR_FORMAT, "number 1 of a vocabulary of 1"},
    {UNIGRAM("[\"a\",-1]", "-1"), BG_ERR_FORMAT, "\"unk_id\""},
    {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":[]}}", BG_ERR_FORMAT, "vocabulary"},
    {"{" PLAIN ",\"normalizer\":" CHARSMAP("?") "}", BG_ERR_FORMAT, "not base64"},
    {"{" PLAIN ",\"normalizer\":" CHARSMAP("AAAA") "}", BG_ERR_FORMAT, "cut short"},
    {"{" PLAIN ",\"normalizer\":" CHARSMAP("AAAAAA==") "}", BG_ERR_FORMAT, "cut short"},
    {"{" PLAIN ",\"normalizer\":" CHARSMAP("/////wAAAAA=") "}", BG_ERR_FORMAT, "cut short"},
    {"{" PLAIN ",\"normalizer\":" CHARSMAP("BAAAAAAAAAD/") "}", BG_ERR_FORMAT, "not UTF-8"},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", BG_ERR_FORMAT,
     "one character"},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"often\"}}",
     BG_ERR_FORMAT, "\"often\""},
    {"{" PLAIN ",\"decoder\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\","
     "\"add_prefix_space\":false}}",
     BG_ERR_FORMAT, "contradicts"},
    {"{" PLAIN ",\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}}", BG_ERR_FORMAT,
     "\"length\""},
    {"{" PLAIN ",\"decoder\":{\"type\":\"CTC\",\"word_delimiter_token\":\"\"}}", BG_ERR_FORMAT,
     "must not be empty"},
    {"{" PLAIN ",\"truncation\":{\"strategy\":\"Odd\"}}", BG_ERR_FORMAT, "\"Odd\""},
    {"{" PLAIN ",\"truncation\":{\"max_length\":-1}}", BG_ERR_FORMAT, "\"max_length\""},
    {"{" PLAIN ",\"padding\":{\"direction\":\"Up\"}}", BG_ERR_FORMAT, "\"Up\""},
    {"{" PLAIN ",\"padding\":{\"strategy\":{\"Fixed\":1e30}}}", BG_ERR_FORMAT, "\"Fixed\""},
    {"{" PLAIN ",\"padding\":{\"pad_id\":99999999}}", BG_ERR_FORMAT, "\"pad_id\""},
    {"{" PLAIN ",\"added_tokens\":{}}", BG_ERR_FORMAT, "\"added_tokens\""},
    {"{" PLAIN ",\"added_tokens\":[{}]}", BG_ERR_FORMAT, "\"content\""},
    {"{" PLAIN ",\"added_tokens\":[{\"content\":\"x\"}]}", BG_ERR_FORMAT, "\"id\""},
    {"{" PLAIN ",\"added_tokens\":[{\"content\":\"x\",\"id\":4e9}]}", BG_ERR_FORMAT, "\"id\""},
    {"{" PLAIN ",\"added_tokens\":[{\"content\":\"x\",\"id\":4},{\"content\":\"y\",\"id\":4}]}",
     BG_ERR_FORMAT, "same id 4"},
};

static void wrong_files(void)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bg_error err = {0};
        bg_status status = parse(wrong[i].json, strlen(wrong[i].json), &err);
        CHECK(status == wrong[i].status && err.status == status, "%s: status %d: %s", wrong[i].json,
              status, err.message);
        CHECK(strstr(err.message, wrong[i].says) != NULL, "%s: %s", wrong[i].json, err.message);
    }
}

static void deep(void)
{
    enum { DEPTH = 1000 };
    static char json[DEPTH * 64];
    size_t n = (size_t)sprintf(json, "{" PLAIN ",\"normalizer\":");
    for (int i = 0; i < DEPTH; i++)
        n += (size_t)sprintf(json + n, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < DEPTH; i++) n += (size_t)sprintf(json + n, "]}");
    json[n++] = '}';
    bg_error err = {0};
    CHECK(parse(json, n, &err) == BG_ERR_FORMAT && strstr(err.message, "deep"), "%s", err.message);
}

static void texts(void)
{
    static const struct {
        const char *text;
        const char *at; /* where it is wrong */
    } invalid[] = {
        {"ab\xff", "byte 2"},
        {"\x80", "byte 0"},
        {"a\xc3", "byte 1"},
        {"\xc0\xaf", "byte 0"},
        {"x\xed\xa0\x80y", "byte 1"}, /* a lone surrogate */
        {"\xf4\x90\x80\x80", "byte 0"},
        {"ok \xe6\x9d", "byte 3"},
        {"\xed\xa0\xbd\xed\xb8\x80", "byte 0"},
    };
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    int32_t *ids;
    size_t n, size;
    char *text;
    if (bg_tokenizer_parse(small, strlen(small), "test.json", &t, &err) != BG_OK) return;
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        bg_status status =
            bg_tokenizer_encode(t, invalid[i].text, strlen(invalid[i].text), true, &ids, &n, &err);
        CHECK(status == BG_ERR_FORMAT && !ids && n == 0, "text %zu", i);
        CHECK(strstr(err.message, invalid[i].at) != NULL, "%s", err.message);
    }
    CHECK(bg_tokenizer_encode_truncated(t, "a", 1, true, 0, &ids, &n, &err) == BG_ERR_USAGE);
    CHECK(bg_tokenizer_encode_truncated(t, "a", 1, true, 1, &ids, &n, &err) == BG_OK && n == 1);
    bg_ids_free(ids);
    CHECK(bg_tokenizer_encode_truncated(t, "a", 1, false, 0, &ids, &n, &err) == BG_OK && n == 0);
    bg_ids_free(ids);
    /* A text that no token covers, and no unknown token. */
    bg_tokenizer *sparse = NULL;
    static const char unigram[] = UNIGRAM("[\"a\",-1]", "null");
    CHECK(bg_tokenizer_parse(unigram, strlen(unigram), "test.json", &sparse, &err) == BG_OK);
    CHECK(bg_tokenizer_encode(sparse, "aa", 2, true, &ids, &n, &err) == BG_OK && n == 2);
    bg_ids_free(ids);
    CHECK(bg_tokenizer_encode(sparse, "ab", 2, true, &ids, &n, &err) == BG_ERR_FORMAT);
    CHECK(strstr(err.message, "\"b\""), "%s", err.message);
    bg_tokenizer_close(sparse);
    static const int32_t strange[] = {-1, 5, 11, INT32_MAX, INT32_MIN, 3};
    CHECK(bg_tokenizer_decode(t, strange, 6, false, &text, &size, &err) == BG_OK);
    CHECK_STRING(text, " abab"); /* ids without a token are passed over */
    CHECK(size == 5);
    bg_string_free(text);
    bg_tokenizer_close(t);
}

/* A word of a million characters must not take a million times a million steps, nor may a regular
 * expression that backtracks without end. */
static void long_words(void)
{
    enum { SIZE = 1 << 20 };
    static const char backtracking[] =
        "{" PLAIN ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":"
        "{\"Regex\":\"(a|aa|a.)*(a|aa)*(a.|a)*b\"}}}";
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    int32_t *ids = NULL;
    size_t n;
    char *text = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) text[i] = "ab"[i & 1];
    if (bg_tokenizer_parse(small, strlen(small), "test.json", &t, &err) != BG_OK) return;
    CHECK(bg_tokenizer_encode(t, text, SIZE, false, &ids, &n, &err) == BG_OK, "%s", err.message);
    CHECK(n == SIZE / 2 && ids[0] == 5 && ids[1] == 3 && ids[n - 1] == 3, "%zu ids", n);
    bg_ids_free(ids);
    bg_tokenizer_close(t);
    memset(text, 'a', SIZE);
    CHECK(bg_tokenizer_parse(backtracking, strlen(backtracking), "test.json", &t, &err) == BG_OK);
    CHECK(bg_tokenizer_encode(t, text, SIZE, false, &ids, &n, &err) == BG_ERR_FORMAT && !ids);
    CHECK(strstr(err.message, "backtracks"), "%s", err.message);
    bg_tokenizer_close(t);
    free(text);
}

/* ---- directories ----------------------------------------------------------------------------- */

static char directory[] = TEMPORARY;

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!text) {
        unlink(path);
        return;
    }
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

static bg_tokenizer *open_directory(bg_status expected, const char *says)
{
    bg_tokenizer *t = NULL;
    bg_error err = {0};
    bg_status status = bg_tokenizer_open(directory, &t, &err);
    CHECK(status == expected, "status %d: %s", status, err.message);
    CHECK(!says || strstr(err.message, says), "%s", err.message);
    return t;
}

static void file_sets(void)
{
    bg_tokenizer *t;
    bg_error err = {0};
    int32_t *ids;
    size_t n;
    CHECK(mkdtemp(directory) != NULL);
    open_directory(BG_ERR_FILE, "tokenizer.json");
    CHECK(bg_tokenizer_open("/no/such/directory", &t, &err) == BG_ERR_FILE);

    put("vocab.txt", "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\nhe\n##llo\n\xc3\xa9\nE\n");
    t = open_directory(BG_OK, NULL);
    if (t) {
        CHECK(bg_tokenizer_encode(t, "HEllo \xc3\xa9 zz[SEP]", 16, true, &ids, &n, &err) == BG_OK);
        /* accents go with case, so "e" is unknown */
        CHECK(n == 7 && ids[0] == 2 && ids[1] == 4 && ids[2] == 5 && ids[3] == 1 && ids[4] == 1 &&
                  ids[5] == 3 && ids[6] == 3,
              "%zu ids", n);
        bg_ids_free(ids);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_PAD) == 0);
        bg_tokenizer_close(t);
    }
    put("tokenizer_config.json", "{\"do_lower_case\":false,\"truncation_side\":\"left\","
                                 "\"pad_token\":{\"content\":\"[UNK]\"}}");
    t = open_directory(BG_OK, NULL);
    if (t) {
        CHECK(bg_tokenizer_encode_truncated(t, "he E \xc3\xa9", 7, true, 4, &ids, &n, &err) ==
              BG_OK);
        CHECK(n == 4 && ids[0] == 2 && ids[1] == 7 && ids[2] == 6 && ids[3] == 3, "%zu ids", n);
        bg_ids_free(ids);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_PAD) == 1);
        bg_tokenizer_close(t);
    }
    put("tokenizer_config.json", "[]");
    open_directory(BG_ERR_FORMAT, "tokenizer_config.json");
    put("tokenizer_config.json", NULL);
    put("vocab.txt", "a\nb\n");
    open_directory(BG_ERR_FORMAT, "[CLS]");
    put("vocab.txt", "a\n\xff\n");
    open_directory(BG_ERR_FORMAT, "byte 2");
    put("vocab.txt", "");
    open_directory(BG_ERR_FORMAT, "lines");
    put("vocab.txt", NULL);

    put("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}");
    put("merges.txt", "#version: 0.2\na b\n");
    t = open_directory(BG_OK, NULL);
    if (t) {
        CHECK(bg_tokenizer_encode(t, "abba<|endoftext|>", 17, true, &ids, &n, &err) == BG_OK);
        CHECK(n == 4 && ids[0] == 2 && ids[1] == 1 && ids[2] == 0 && ids[3] == 3, "%zu ids", n);
        bg_ids_free(ids);
        CHECK(bg_tokenizer_special(t, BG_TOKEN_EOS) == 3);
        bg_tokenizer_close(t);
    }
    put("merges.txt", "a b\na\n");
    open_directory(BG_ERR_FORMAT, "merge 1");
    put("merges.txt", "a c\n");
    open_directory(BG_ERR_FORMAT, "not in the vocabulary");
    put("vocab.json", "{\"a\":");
    open_directory(BG_ERR_FORMAT, "vocab.json");
    put("vocab.json", NULL);
    put("merges.txt", NULL);
    CHECK(rmdir(directory) == 0);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bg_status everything(const char *json, bg_error *err)
{
    static const char text[] = "The AB-[X] caf\xc3\xa9 e\xcc\x81 the \xe6\x9d\xb1 it's ab ab";
    bg_tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n, size;
    char *decoded = NULL;
    bg_status status = bg_tokenizer_parse(json, strlen(json), "test.json", &t, err);
    if (status == BG_OK)
        status = bg_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &n, err);
    if (status == BG_OK) status = bg_tokenizer_decode(t, ids, n, true, &decoded, &size, err);
    if (status == BG_OK) {
        const bg_tokenizer_input inputs[] = {{text, sizeof text - 1, "ab the", 6},
                                             {"ab", 2, NULL, 0}};
        const bg_encode_options options = {.add_special = true, .truncate = true, .pad = true};
        bg_encoding *rows;
        status = bg_tokenizer_encode_batch(t, inputs, 2, &options, &rows, err);
        if (status == BG_OK) bg_encodings_free(rows, 2);
    }
    bg_string_free(decoded);
    bg_ids_free(ids);
    bg_tokenizer_close(t);
    return status;
}

static void step_through(const char *what, const char *json)
{
    long n = 0;
    for (;; n++) {
        bg_error err = {0};
        bg_alloc_fail_after(n);
        bg_status status = everything(json, &err);
        bool enough = bg_alloc_count() <= n;
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "%s, allocation %ld: %s", what, n,
              err.message);
        CHECK(!enough || status == BG_OK, "%s, allocation %ld: %s", what, n, err.message);
        if (enough) break;
    }
    CHECK(n > 50, "%s: only %ld allocations", what, n);
}

static void out_of_memory(void)
{
    static const char wordpiece[] =
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"the\":1,\"ab\":2,\"##a\":3}},"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"BertNormalizer\"},"
        "{\"type\":\"Prepend\",\"prepend\":\"_\"},{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"_\"},\"content\":\"\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"BertPreTokenizer\"},{\"type\":\"Digits\"}]},\"decoder\":{\"type\":"
        "\"Sequence\",\"decoders\":[{\"type\":\"WordPiece\",\"prefix\":\"##\"},{\"type\":"
        "\"ByteFallback\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"o\"},"
        "{\"type\":\"BPEDecoder\"}]},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\""
        ",1],\"sep\":[\"b\",2]}}";
    step_through("BPE", small);
    static const char unigram[] =
        "{\"truncation\":{\"max_length\":6,\"strategy\":\"LongestFirst\",\"direction\":\"Left\"},"
        "\"padding\":{\"strategy\":\"BatchLongest\",\"pad_id\":0,\"pad_to_multiple_of\":4},"
        "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<unk>\","
        "0],"
        "[\"\u2581\",-2],[\"the\",-3],[\"\u2581the\",-4],[\"<0xE6>\",-5],[\"a\",-2.5]]},"
        "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAABhAA==\"},"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"UnicodeScripts\"},"
        "{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},{\"type\":\"FixedLength\"}]},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Metaspace\"},{\"type\":"
        "\"CTC\"}"
        "]},\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"a\",1],\"sep\":[\"b\",2]}"
        "}";
    step_through("WordPiece", wordpiece);
    step_through("Unigram", unigram);
}

int main(void)
{
    RUN(small_works);
    RUN(wrong_files);
    RUN(deep);
    RUN(texts);
    RUN(long_words);
    RUN(file_sets);
    RUN(out_of_memory);
    RUN(cut_and_changed);
    return test_finish();
}
