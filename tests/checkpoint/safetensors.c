/* The parser of one safetensors file: what it reads from good files, and that each way to be a bad
 * one ends in an error that says where. */
#include "test.h"

#include "checkpoint/files.h"
#include "checkpoint/safetensors.h"
#include "core/alloc.h"

#define NAME "dir/model.safetensors"

static const char good_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
    "\"empty\":{\"dtype\":\"I64\",\"shape\":[4,0],\"data_offsets\":[20,20]},"
    "\"scalar\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[20,21]}}   ";

static bg_status parse(const char *header, size_t header_size, size_t data_size, bg_error *err)
{
    size_t size;
    uint8_t *bytes = make_safetensors(header, header_size, data_size, &size);
    bg_safetensors file;
    bg_status status = bg_safetensors_parse(bytes, size, NAME, &file, err);
    if (status == BG_OK) bg_safetensors_free(&file);
    CHECK(!file.tensors && !file.names && !file.metadata && !file.count,
          "something is left to free");
    free(bytes);
    return status;
}

static void test_good(void)
{
    size_t size;
    uint8_t *bytes = make_safetensors(good_header, strlen(good_header), 21, &size);
    bg_safetensors file;
    bg_error err = {0};
    CHECK(bg_safetensors_parse(bytes, size, NAME, &file, &err) == BG_OK, "%s", err.message);
    const uint8_t *data = bytes + 8 + strlen(good_header);
    CHECK(file.count == 4, "%zu", file.count);
    /* in the order of the data, not of the header */
    CHECK_STRING(file.tensors[0].name, "a");
    CHECK(file.tensors[0].dtype == BG_F32 && file.tensors[0].rank == 1, "a");
    CHECK(file.tensors[0].shape[0] == 2 && file.tensors[0].bytes == 8, "a");
    CHECK(file.tensors[0].data == data, "a");
    CHECK_STRING(file.tensors[1].name, "b");
    CHECK(file.tensors[1].dtype == BG_F16 && file.tensors[1].rank == 2, "b");
    CHECK(file.tensors[1].shape[0] == 2 && file.tensors[1].shape[1] == 3, "b");
    CHECK(file.tensors[1].data == data + 8 && file.tensors[1].bytes == 12, "b");
    CHECK_STRING(file.tensors[2].name, "empty");
    CHECK(file.tensors[2].bytes == 0 && file.tensors[2].shape[1] == 0, "empty");
    CHECK_STRING(file.tensors[3].name, "scalar");
    CHECK(file.tensors[3].rank == 0 && file.tensors[3].bytes == 1 &&
              file.tensors[3].data == data + 20,
          "scalar");
    CHECK_STRING(file.tensors[3].file, NAME);
    CHECK_STRING(json_string_value(json_object_get(file.metadata, "format")), "pt");
    bg_safetensors_free(&file);
    free(bytes);

    CHECK(parse("{}", 2, 0, &err) == BG_OK, "no tensors: %s", err.message);
    static const char eight[] =
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]}}";
    CHECK(parse(eight, strlen(eight), 2, &err) == BG_OK, "rank 8: %s", err.message);
}

static void test_types(void)
{
    static const struct {
        const char *name;
        bg_dtype dtype;
        int size;
    } types[] = {{"F64", BG_F64, 8}, {"F32", BG_F32, 4},  {"F16", BG_F16, 2}, {"BF16", BG_BF16, 2},
                 {"I64", BG_I64, 8}, {"I32", BG_I32, 4},  {"I16", BG_I16, 2}, {"I8", BG_I8, 1},
                 {"U8", BG_U8, 1},   {"BOOL", BG_BOOL, 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char header[128];
        size_t size;
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}", types[i].name,
                 3 * types[i].size);
        uint8_t *bytes =
            make_safetensors(header, strlen(header), (size_t)(3 * types[i].size), &size);
        bg_safetensors file;
        bg_error err = {0};
        bg_status status = bg_safetensors_parse(bytes, size, NAME, &file, &err);
        CHECK(status == BG_OK, "%s", err.message);
        if (status == BG_OK) CHECK(file.tensors[0].dtype == types[i].dtype, "%s", types[i].name);
        bg_safetensors_free(&file);
        free(bytes);
    }
}

/* Cut anywhere, the file is refused; so is it with anything behind its end. */
static void test_truncated(void)
{
    size_t size;
    uint8_t *bytes = make_safetensors(good_header, strlen(good_header), 21, &size);
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, bytes, n);
        bg_safetensors file;
        bg_error err = {0};
        CHECK(bg_safetensors_parse(cut, n, NAME, &file, &err) == BG_ERR_FORMAT, "cut at %zu", n);
        CHECK(err.status == BG_ERR_FORMAT && strstr(err.message, NAME), "cut at %zu: %s", n,
              err.message);
        CHECK(strstr(err.message, "download"), "no remedy: %s", err.message);
        free(cut);
    }
    free(bytes);
    bg_error err;
    CHECK(parse(good_header, strlen(good_header), 22, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "data bytes 21 to 22"), "%s", err.message);
}

static void test_header_length(void)
{
    static const struct {
        uint64_t length;
        const char *says;
    } cases[] = {
        {0, "header"},
        {1, "header"},
        {93, "only 92 bytes follow"},
        {100000001, "limit of 100000000"},
        {UINT64_MAX, "limit of 100000000"},
        {UINT64_MAX - 7, "limit of 100000000"},
        {(uint64_t)1 << 63, "limit of 100000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[100];
        bg_safetensors file;
        bg_error err = {0};
        memset(bytes, ' ', sizeof bytes);
        for (int k = 0; k < 8; k++) bytes[k] = (uint8_t)(cases[i].length >> 8 * k);
        CHECK(bg_safetensors_parse(bytes, sizeof bytes, NAME, &file, &err) == BG_ERR_FORMAT, "%s",
              err.message);
        CHECK(strstr(err.message, NAME) && strstr(err.message, cases[i].says), "%s", err.message);
    }
}

#define TENSOR(dtype, shape, offsets)                                                              \
    "\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" TENSOR(dtype, shape, offsets) "}"
#define U8(name, from, to, n)                                                                      \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" n "],\"data_offsets\":[" from "," to "]}"

static void test_hostile_headers(void)
{
    /* Each header stands before 16 bytes of data. */
    static const struct {
        const char *header;
        bg_status status;
        const char *says, *place;
    } cases[] = {
        {"", BG_ERR_FORMAT, "header", "line 1"},
        {"[]", BG_ERR_FORMAT, "JSON object", "header"},
        {"null", BG_ERR_FORMAT, "JSON object", "header"},
        {"{\"w\":", BG_ERR_FORMAT, "not valid JSON", "header"},
        {"{} {}", BG_ERR_FORMAT, "not valid JSON", "header"},
        {"{\"w\":1}", BG_ERR_FORMAT, "must be an object", "\"w\""},
        {"{\"w\":[]}", BG_ERR_FORMAT, "must be an object", "\"w\""},
        {"{\"w\":{}}", BG_ERR_FORMAT, "\"dtype\" must be a string", "\"w\""},
        {"{\"__metadata__\":[]}", BG_ERR_FORMAT, "must be an object", "__metadata__"},
        {"{\"__metadata__\":{\"k\":1}}", BG_ERR_FORMAT, "must be a string", "\"k\""},
        {ONE("7", "[16]", "[0,16]"), BG_ERR_FORMAT, "\"dtype\" must be a string", "\"w\""},
        {ONE("\"F8_E4M3\"", "[16]", "[0,16]"), BG_ERR_UNSUPPORTED, "\"F8_E4M3\"", "\"w\""},
        {ONE("\"U32\"", "[4]", "[0,16]"), BG_ERR_UNSUPPORTED, "\"U32\"", "\"w\""},
        {ONE("\"f32\"", "[4]", "[0,16]"), BG_ERR_UNSUPPORTED, "\"f32\"", "\"w\""},
        {ONE("\"U8\"", "16", "[0,16]"), BG_ERR_FORMAT, "\"shape\" must be an array", "\"w\""},
        {ONE("\"U8\"", "[1,1,1,1,1,1,1,1,16]", "[0,16]"), BG_ERR_FORMAT, "9 dimensions", "\"w\""},
        {ONE("\"U8\"", "[-16]", "[0,16]"), BG_ERR_FORMAT, "not negative", "\"w\""},
        {ONE("\"U8\"", "[-4,-4]", "[0,16]"), BG_ERR_FORMAT, "not negative", "\"w\""},
        {ONE("\"U8\"", "[16.0]", "[0,16]"), BG_ERR_FORMAT, "whole numbers", "\"w\""},
        {ONE("\"U8\"", "[\"16\"]", "[0,16]"), BG_ERR_FORMAT, "whole numbers", "\"w\""},
        {ONE("\"U8\"", "[null]", "[0,16]"), BG_ERR_FORMAT, "whole numbers", "\"w\""},
        /* 2^32 * 2^32 wraps to 0, 2^62 F32 to 0, 3 * (2^64+1)/3 to 1 */
        {ONE("\"U8\"", "[4294967296,4294967296]", "[0,0]"), BG_ERR_FORMAT, "overflows", "\"w\""},
        {ONE("\"F32\"", "[4611686018427387904]", "[0,0]"), BG_ERR_FORMAT, "overflows", "\"w\""},
        {ONE("\"F32\"", "[4611686018427387904,0]", "[0,0]"), BG_ERR_FORMAT, "overflows", "\"w\""},
        {ONE("\"U8\"", "[6148914691236517206,3]", "[0,2]"), BG_ERR_FORMAT, "overflows", "\"w\""},
        {ONE("\"U8\"", "[9223372036854775807]", "[0,16]"), BG_ERR_FORMAT, "shape and type take",
         "\"w\""},
        {ONE("\"U8\"", "[9223372036854775808]", "[0,16]"), BG_ERR_FORMAT, "not valid JSON",
         "line 1"},
        {ONE("\"U8\"", "[1e999]", "[0,16]"), BG_ERR_FORMAT, "not valid JSON", "line 1"},
        {ONE("\"U8\"", "[16]", "[0,17]"), BG_ERR_FORMAT, "outside the 16 bytes", "[0, 17)"},
        {ONE("\"U8\"", "[16]", "[16,0]"), BG_ERR_FORMAT, "outside the 16 bytes", "[16, 0)"},
        {ONE("\"U8\"", "[1]", "[16,17]"), BG_ERR_FORMAT, "outside the 16 bytes", "[16, 17)"},
        {ONE("\"U8\"", "[16]", "[-16,0]"), BG_ERR_FORMAT, "not negative", "\"w\""},
        {ONE("\"U8\"", "[16]", "[9223372036854775792,9223372036854775807]"), BG_ERR_FORMAT,
         "outside", "\"w\""},
        {ONE("\"U8\"", "[16]", "[0]"), BG_ERR_FORMAT, "two whole numbers", "\"w\""},
        {ONE("\"U8\"", "[16]", "[0,16,16]"), BG_ERR_FORMAT, "two whole numbers", "\"w\""},
        {ONE("\"U8\"", "[16]", "[0,16.0]"), BG_ERR_FORMAT, "two whole numbers", "\"w\""},
        {ONE("\"U8\"", "[16]", "{}"), BG_ERR_FORMAT, "two whole numbers", "\"w\""},
        {ONE("\"U8\"", "[15]", "[0,16]"), BG_ERR_FORMAT, "are 16 bytes", "take 15"},
        {ONE("\"F32\"", "[16]", "[0,16]"), BG_ERR_FORMAT, "are 16 bytes", "take 64"},
        {ONE("\"U8\"", "[8]", "[0,8]"), BG_ERR_FORMAT, "belong to no tensor", "bytes 8 to 16"},
        {ONE("\"U8\"", "[8]", "[8,16]"), BG_ERR_FORMAT, "belong to no tensor", "bytes 0 to 8"},
        {"{}", BG_ERR_FORMAT, "belong to no tensor", "bytes 0 to 16"},
        {"{" U8("a", "0", "8", "8") "," U8("b", "7", "16", "9") "}", BG_ERR_FORMAT,
         "\"b\" overlaps \"a\"", "offset 7"},
        {"{" U8("a", "0", "16", "16") "," U8("b", "0", "16", "16") "}", BG_ERR_FORMAT, "overlaps",
         "offset 0"},
        {"{" U8("a", "0", "16", "16") "," U8("b", "4", "8", "4") "}", BG_ERR_FORMAT, "overlaps",
         "offset 4"},
        {"{" U8("a", "0", "16", "16") "," U8("b", "4", "4", "0") "}", BG_ERR_FORMAT, "overlaps",
         "offset 4"},
        {"{" U8("a", "0", "7", "7") "," U8("b", "9", "16", "7") "}", BG_ERR_FORMAT, "bytes 7 to 9",
         "\"b\""},
        {"{" U8("a", "0", "8", "8") "," U8("a", "8", "16", "8") "}", BG_ERR_FORMAT, "duplicate",
         "line 1"},
        {"{\"\xff\":{}}", BG_ERR_FORMAT, "not valid JSON", "line 1"},
        {"{\"\xc0\x80\":{}}", BG_ERR_FORMAT, "not valid JSON", "line 1"},
        {"{\"\xed\xa0\x80\":{}}", BG_ERR_FORMAT, "not valid JSON", "line 1"},
        {"{\"\\ud800\":{}}", BG_ERR_FORMAT, "not valid JSON", "line 1"},
        {"{\"a\\u0000b\":{}}", BG_ERR_FORMAT, "not valid JSON", "line 1"},
        /* a name that would clear the screen */
        {"{\"\\u001b[2J\\u009b2J\":{}}", BG_ERR_FORMAT, "tensor \"?[2J??2J\"", "\"dtype\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_error err = {0};
        bg_status status = parse(cases[i].header, strlen(cases[i].header), 16, &err);
        CHECK(status == cases[i].status && err.status == status, "%s: %d: %s", cases[i].header,
              status, err.message);
        CHECK(strstr(err.message, NAME) == err.message, "%s", err.message);
        CHECK(strstr(err.message, cases[i].says) && strstr(err.message, cases[i].place),
              "%s: wanted %s, %s", err.message, cases[i].says, cases[i].place);
        CHECK(strstr(err.message, "download") || strstr(err.message, "use "), "no remedy: %s",
              err.message);
    }
}

/* A name as long as the whole message leaves room for what is wrong and what to do. */
static void test_long_name(void)
{
    enum { LENGTH = 5000 };
    char *header = malloc(LENGTH + 10);
    header[0] = '{', header[1] = '"';
    memset(header + 2, 'n', LENGTH);
    strcpy(header + 2 + LENGTH, "\":{}}");
    bg_error err = {0};
    CHECK(parse(header, strlen(header), 0, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "\"dtype\"") && strstr(err.message, "download"), "%s", err.message);
    free(header);
}

static void test_deep_and_large(void)
{
    enum { DEPTH = 100000 };
    char *deep = malloc(DEPTH + 6);
    memcpy(deep, "{\"w\":", 5);
    memset(deep + 5, '[', DEPTH);
    bg_error err = {0};
    CHECK(parse(deep, DEPTH + 5, 0, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, NAME) && strstr(err.message, "depth"), "%s", err.message);
    for (int i = 0; i < DEPTH / 5; i++) memcpy(deep + 5 * i, "{\"a\":", 5);
    CHECK(parse(deep, DEPTH, 0, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "depth"), "%s", err.message);
    /* a number of 100,000 digits */
    memcpy(deep, "{\"w\":", 5);
    memset(deep + 5, '9', DEPTH);
    deep[DEPTH + 5] = '}';
    CHECK(parse(deep, DEPTH + 6, 0, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "too big"), "%s", err.message);
    free(deep);
}

/* A file in another format is called by its name. */
static void test_other_formats(void)
{
    static const struct {
        const char *bytes;
        const char *says;
    } cases[] = {
        {"GGUF\x03\x01\x01\x01 general", "GGUF"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"},
        {"<!DOCTYPE html><html>", "web page"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_safetensors file;
        bg_error err = {0};
        CHECK(bg_safetensors_parse((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes), NAME,
                                   &file, &err) == BG_ERR_UNSUPPORTED,
              "%s", err.message);
        CHECK(strstr(err.message, NAME) && strstr(err.message, cases[i].says), "%s", err.message);
    }
}

static void test_allocation_failures(void)
{
    size_t size;
    uint8_t *bytes = make_safetensors(good_header, strlen(good_header), 21, &size);
    long n = 0;
    for (bg_status status = BG_ERR_MEMORY; status != BG_OK && n < 10000; n++) {
        bg_safetensors file;
        bg_error err = {0};
        bg_alloc_fail_after(n);
        status = bg_safetensors_parse(bytes, size, NAME, &file, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "after %ld: %s", n, err.message);
        bg_safetensors_free(&file);
    }
    CHECK(n > 10 && n < 10000, "%ld allocations", n);
    free(bytes);
}

int main(void)
{
    RUN(test_good);
    RUN(test_types);
    RUN(test_truncated);
    RUN(test_header_length);
    RUN(test_hostile_headers);
    RUN(test_long_name);
    RUN(test_deep_and_large);
    RUN(test_other_formats);
    RUN(test_allocation_failures);
    return test_finish();
}
