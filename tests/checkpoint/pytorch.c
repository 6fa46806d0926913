/* Files of torch.save: those it wrote, against the same tensors as safetensors, and damaged ones.
 */
#include "test.h"

#include "checkpoint/archive.h"
#include "checkpoint/files.h"
#include "checkpoint/pytorch.h"
#include "core/alloc.h"
#include "core/file.h"

#include <stdlib.h>

#define FIXTURES "tests/fixtures/pytorch/"
#define NAME     "dir/pytorch_model.bin"

static const char *const good_files[] = {
    FIXTURES "zip.bin",           FIXTURES "zip-protocol-4.bin",    FIXTURES "zip-protocol-5.bin",
    FIXTURES "legacy.bin",        FIXTURES "legacy-protocol-4.bin", FIXTURES "nested.bin",
    FIXTURES "nested-legacy.bin",
};
enum { N_GOOD = sizeof good_files / sizeof *good_files };

/* The bytes of a file in a block of just its size. */
static uint8_t *slurp(const char *path, size_t *size)
{
    bg_mapping map;
    bg_error err = {0};
    if (bg_map_file(path, &map, &err) != BG_OK) {
        puts(err.message);
        exit(1);
    }
    uint8_t *bytes = malloc(map.size);
    memcpy(bytes, map.data, map.size);
    *size = map.size;
    bg_unmap(&map);
    return bytes;
}

static bool equal(const bg_tensor *a, const bg_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0 &&
           memcmp(a->data, b->data, a->bytes) == 0;
}

static void test_equal_to_safetensors(void)
{
    bg_checkpoint *expected, *c;
    bg_error err = {0};
    CHECK(bg_checkpoint_open_file(FIXTURES "expected.safetensors", &expected, &err) == BG_OK, "%s",
          err.message);
    for (size_t i = 0; i < N_GOOD; i++) {
        bg_status status = bg_checkpoint_open_file(good_files[i], &c, &err);
        CHECK(status == BG_OK, "%s", err.message);
        if (status != BG_OK) continue;
        CHECK(bg_checkpoint_count(c) == 27 && bg_checkpoint_count(expected) == 27,
              "%s: %zu tensors", good_files[i], bg_checkpoint_count(c));
        CHECK_STRING(bg_checkpoint_tensor(c, 0)->name, "type.float64"); /* in the file's order */
        for (size_t k = 0; k < bg_checkpoint_count(expected); k++) {
            const bg_tensor *want = bg_checkpoint_tensor(expected, k);
            const bg_tensor *got = bg_checkpoint_find(c, want->name);
            CHECK(got && equal(got, want), "%s: %s", good_files[i], want->name);
            if (!got) continue;
            bg_checkpoint_prefetch(c, got);
            bg_checkpoint_release(c, got);
            CHECK(equal(got, want), "%s: %s, released", good_files[i], want->name);
            CHECK(got->file_index == 0 && strcmp(got->file, good_files[i]) == 0, "%s", got->file);
        }
        bg_checkpoint_close(c);
    }
    bg_checkpoint_close(expected);
}

/* Only what is out of order is copied. */
static void test_used_in_place(void)
{
    static const char *const copied[] = {"columns",  "transposed",    "strided", "channels_last",
                                         "permuted", "ones_anywhere", "expanded"};
    for (size_t i = 0; i < N_GOOD; i++) {
        size_t size;
        uint8_t *bytes = slurp(good_files[i], &size);
        bg_pytorch file;
        bg_error err = {0};
        CHECK(bg_pytorch_detect(bytes, size), "%s", good_files[i]);
        CHECK(bg_pytorch_parse(bytes, size, NAME, &file, &err) == BG_OK, "%s", err.message);
        for (size_t k = 0; k < file.count; k++) {
            const bg_tensor *t = &file.tensors[k];
            const uint8_t *data = t->data;
            bool copy = false;
            for (size_t j = 0; j < sizeof copied / sizeof *copied; j++)
                copy |= strcmp(copied[j], t->name) == 0;
            CHECK((data >= bytes && data + t->bytes <= bytes + size) == !copy, "%s: %s",
                  good_files[i], t->name);
        }
        bg_pytorch_free(&file);
        free(bytes);
    }
}

static void test_shards(void)
{
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    bg_status status = bg_checkpoint_open(FIXTURES "sharded", &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    CHECK(bg_checkpoint_count(c) == 3 && bg_checkpoint_file_count(c) == 2, "%zu tensors",
          bg_checkpoint_count(c));
    const bg_tensor *t = bg_checkpoint_find(c, "c");
    CHECK(t && t->dtype == BG_I64 && t->shape[0] == 5 && t->file_index == 1, "c is wrong");
    CHECK(bg_checkpoint_has_weights(FIXTURES "sharded"), "no weights");
    bg_checkpoint_close(c);
}

/* safetensors come first, a whole file before an index. */
static void test_order_of_files(void)
{
    bg_checkpoint *c;
    bg_error err = {0};
    size_t size;
    uint8_t *bytes = slurp(FIXTURES "zip.bin", &size);
    files_begin();
    files_text("config.json", "{}");
    CHECK(!bg_checkpoint_has_weights(files_directory), "weights");
    files_text("pytorch_model.bin.index.json", "{\"weight_map\":{}}");
    CHECK(bg_checkpoint_has_weights(files_directory), "no weights");
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_ERR_FORMAT, "an empty index");
    CHECK(strstr(err.message, "names no tensors"), "%s", err.message);
    files_write("pytorch_model.bin", bytes, size);
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_OK, "%s", err.message);
    CHECK(bg_checkpoint_count(c) == 27, "%zu tensors", bg_checkpoint_count(c));
    bg_checkpoint_close(c);
    files_text("model.safetensors.index.json", "{\"weight_map\":{}}");
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_ERR_FORMAT, "an empty index");
    CHECK(strstr(err.message, "model.safetensors.index.json"), "%s", err.message);
    files_safetensors("model.safetensors",
                      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    CHECK(bg_checkpoint_open(files_directory, &c, &err) == BG_OK, "%s", err.message);
    CHECK(bg_checkpoint_count(c) == 1, "%zu tensors", bg_checkpoint_count(c));
    bg_checkpoint_close(c);
    files_end();
    free(bytes);
}

static void test_inspect(void)
{
    char *text = NULL;
    bg_error err = {0};
    CHECK(bg_inspect(FIXTURES "legacy.bin", false, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && strstr(text, "\n  channels_last     F16   [2, 3, 4, 5]") &&
              strstr(text, "27 tensors"),
          "%s", text);
    bg_string_free(text);
    CHECK(bg_inspect(FIXTURES "sharded", true, &text, &err) == BG_OK, "%s", err.message);
    CHECK(text && strstr(text, "\"name\": \"pytorch_model-00002-of-00002.bin\""), "%s", text);
    bg_string_free(text);
}

/* ---- refused --------------------------------------------------------------------------------- */

/* Parsing must fail so, and say so. */
static void check_refused(const uint8_t *bytes, size_t size, bg_status expected, const char *says)
{
    bg_pytorch file;
    bg_error err = {0};
    bg_status status = bg_pytorch_parse(bytes, size, NAME, &file, &err);
    CHECK(status == expected && err.status == status, "%s: %d: %s", says, status, err.message);
    CHECK(strncmp(err.message, NAME ": ", strlen(NAME) + 2) == 0, "%s", err.message);
    CHECK(strstr(err.message, says), "%s: no \"%s\"", err.message, says);
    if (status == BG_OK) bg_pytorch_free(&file);
}

static void test_other_objects(void)
{
    static const struct {
        const char *path, *says;
    } cases[] = {
        {FIXTURES "module.bin", "\"torch.nn.modules.linear.Linear\""},
        {FIXTURES "tensor.bin", "holds a tensor, not a dictionary"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size;
        uint8_t *bytes = slurp(cases[i].path, &size);
        check_refused(bytes, size, BG_ERR_UNSUPPORTED, cases[i].says);
        free(bytes);
    }
    uint8_t tar[512] = "storages";
    memcpy(tar + 257, "ustar", 5);
    CHECK(bg_pytorch_detect(tar, sizeof tar), "a tar archive");
    check_refused(tar, sizeof tar, BG_ERR_UNSUPPORTED, "tar archive");
    /* the lengths of safetensors headers, though they begin as a pickle or a zip archive does */
    CHECK(!bg_pytorch_detect((const uint8_t *)"\x80\x02\0\0\0\0\0\0{", 9), "640");
    CHECK(!bg_pytorch_detect((const uint8_t *)"PK\3\4\0\0\0\0{", 9), "67324752");
    CHECK(!bg_pytorch_detect((const uint8_t *)"", 0), "nothing");
}

/* Every file cut short anywhere, and with any byte changed, ends well. */
static void test_damaged(void)
{
    for (size_t i = 0; i < N_GOOD; i += 3) {
        size_t size;
        uint8_t *bytes = slurp(good_files[i], &size);
        bg_pytorch file;
        for (size_t cut = 0; cut < size; cut++) {
            bg_error err = {0};
            uint8_t *exact = malloc(cut ? cut : 1);
            memcpy(exact, bytes, cut);
            bg_status status = bg_pytorch_parse(exact, cut, NAME, &file, &err);
            CHECK(status == BG_ERR_FORMAT && strstr(err.message, "download it again"), "%zu: %s",
                  cut, err.message);
            if (status == BG_OK) bg_pytorch_free(&file);
            free(exact);
        }
        for (size_t at = 0; at < size; at++) {
            static const uint8_t changes[] = {0xFF, 0x01};
            for (size_t k = 0; k < sizeof changes; k++) {
                bytes[at] ^= changes[k];
                bg_error err = {0};
                bg_status status = bg_pytorch_parse(bytes, size, NAME, &file, &err);
                CHECK(status == BG_OK || status == BG_ERR_FORMAT || status == BG_ERR_UNSUPPORTED,
                      "byte %zu: %s", at, err.message);
                if (status == BG_OK) bg_pytorch_free(&file);
                bytes[at] ^= changes[k];
            }
        }
        free(bytes);
    }
}

/* {"w": a tensor of six float32 in storage "0"}: offset, size and stride follow. */
#define REBUILD            "ctorch._utils\n_rebuild_tensor\n("
#define STORAGE(numel)     "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpu" numel "tQ"
#define STATE_DICT(tensor) "\x80\x02}X\1\0\0\0w" REBUILD tensor "tRs."
static const char pickle[] = STATE_DICT(STORAGE("K\6") "K\0K\2K\3\x86K\3K\1\x86");
static const float numbers[6] = {1, 2, 3, 4, 5, 6};

#define PICKLE(bytes)                                                                              \
    {                                                                                              \
        .name = "x/data.pkl", .data = (bytes), .size = sizeof(bytes) - 1                           \
    }
#define DATA                                                                                       \
    {                                                                                              \
        .name = "x/data/0", .data = numbers, .size = sizeof numbers                                \
    }

static void test_archives(void)
{
    static const archive_entry good[] = {
        PICKLE(pickle), DATA, {.name = "x/byteorder", .data = "little", .size = 6}};
    static const struct {
        archive_entry entries[4];
        bg_status status; /* BG_OK: none */
        const char *says;
    } cases[] = {
        {{PICKLE(pickle), DATA}, BG_OK, ""},
        {{{.name = "x/data.pkl", .data = pickle, .size = sizeof pickle - 1, .is_64 = true}, DATA},
         BG_OK,
         ""},
        {{PICKLE(pickle), DATA, {.name = "x/byteorder", .data = "big", .size = 3}},
         BG_ERR_UNSUPPORTED,
         "big-endian"},
        {{PICKLE(pickle), DATA, {.name = "x/byteorder", .data = "Little", .size = 6}},
         BG_ERR_FORMAT,
         "byteorder"},
        {{PICKLE(pickle), DATA, {.name = "x/constants.pkl"}}, BG_ERR_UNSUPPORTED, "TorchScript"},
        {{PICKLE(pickle)}, BG_ERR_FORMAT, "no entry \"data/0\""},
        {{DATA}, BG_ERR_UNSUPPORTED, "no entry data.pkl"},
        {{PICKLE(pickle), {.name = "y/data/0", .data = numbers, .size = 24}},
         BG_ERR_FORMAT,
         "no entry \"data/0\""},
        {{PICKLE(pickle), DATA, {.name = "y/data.pkl"}}, BG_ERR_FORMAT, "two entries data.pkl"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 20}},
         BG_ERR_FORMAT,
         "has 20 bytes, but should have 6 elements of float32"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .method = 8}},
         BG_ERR_UNSUPPORTED,
         "\"x/data/0\" is compressed (method 8)"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .flags = 1}},
         BG_ERR_UNSUPPORTED,
         "\"x/data/0\" is encrypted"},
        {{PICKLE(pickle), DATA, DATA}, BG_ERR_FORMAT, "\"x/data/0\" has the name of another"},
        {{PICKLE(pickle),
          {.name = "x/data/0", .data = numbers, .size = 24, .local_name = "x/data/1"}},
         BG_ERR_FORMAT,
         "another name"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .offset = 1}},
         BG_ERR_FORMAT,
         "no local header"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .offset = 1 << 30}},
         BG_ERR_FORMAT,
         "no local header at byte 1073741"},
        {{PICKLE(pickle),
          {.name = "x/data/0", .data = numbers, .size = 24, .offset = INT64_MAX, .is_64 = true}},
         BG_ERR_FORMAT,
         "no local header at byte 9223372"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .more = 1}},
         BG_ERR_FORMAT,
         "its 25 bytes"},
        {{PICKLE(pickle), {.name = "x/data/0", .data = numbers, .size = 24, .more = -25}},
         BG_ERR_FORMAT,
         "is stored, but has"},
        {{PICKLE(pickle),
          {.name = "x/data/0", .data = numbers, .size = 24, .more = INT64_MIN, .is_64 = true}},
         BG_ERR_FORMAT,
         "is stored, but has"},
        /* an entry that reaches into the next */
        {{{.name = "x/data/0", .data = numbers, .size = 24, .more = 8}, PICKLE(pickle)},
         BG_ERR_FORMAT,
         "\"x/data.pkl\" overlaps \"x/data/0\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int zip64 = 0; zip64 < 2; zip64++) {
            size_t n = 0;
            while (n < 4 && cases[i].entries[n].name) n++;
            archive a = archive_make(cases[i].entries, n, zip64);
            bg_pytorch file;
            bg_error err = {0};
            if (cases[i].status != BG_OK) {
                check_refused(a.data, a.size, cases[i].status, cases[i].says);
            } else if (bg_pytorch_parse(a.data, a.size, NAME, &file, &err) != BG_OK) {
                CHECK(false, "case %zu: %s", i, err.message);
            } else {
                CHECK(file.count == 1 && memcmp(file.tensors[0].data, numbers, 24) == 0, "%zu", i);
                bg_pytorch_free(&file);
            }
            free(a.data);
        }
    }
    /* the end records: count, size and offset of the directory, disks, the locator */
    static const struct {
        bool zip64;
        int back; /* bytes before the end record */
        uint8_t byte;
        const char *says;
    } ends[] = {
        {false, -4, 1, "volumes"},
        {false, -10, 200, "more entries"},
        {false, -14, 1, "outside"},
        {false, -18, 0x7F, "outside"},
        {true, 12, 0xFF, "zip64 locator"},
        {true, 5, 0xFF, "zip64 locator"},
        {true, 76 - 39, 0xFF, "more entries"},
        {true, 76 - 47, 0xFF, "outside"},
        {true, 76 - 55, 0xFF, "outside"},
        {true, 76 - 16, 1, "volumes"},
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        archive a = archive_make(good, 3, ends[i].zip64);
        a.data[a.end - (size_t)ends[i].back] = ends[i].byte;
        check_refused(a.data, a.size, BG_ERR_FORMAT, ends[i].says);
        free(a.data);
    }
    archive a = archive_make(good, 3, false);
    a.data[a.directory] = 0;
    check_refused(a.data, a.size, BG_ERR_FORMAT, "no central header");
    free(a.data);
    /* a comment is looked over */
    a = archive_make(good, 3, true);
    a.data[a.end + 20] = 5;
    archive_put(&a, "hello", 5);
    bg_pytorch file;
    bg_error err = {0};
    CHECK(bg_pytorch_parse(a.data, a.size, NAME, &file, &err) == BG_OK, "%s", err.message);
    bg_pytorch_free(&file);
    free(a.data);
}

/* Pickles that ask for what the archive does not have. */
static void test_tensors(void)
{
#define BIG        "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"
#define CASE(text) (text), sizeof(text) - 1
    static const struct {
        const char *pickle;
        size_t size;
        bg_status status;
        const char *says;
    } cases[] = {
        {CASE(STATE_DICT(STORAGE("K\6") "K\1K\2K\3\x86K\3K\1\x86")), BG_ERR_FORMAT,
         "tensor \"w\": reaches element 6 of a storage of 6"},
        {CASE(STATE_DICT(STORAGE("K\6") BIG "K\2K\3\x86K\3K\1\x86")), BG_ERR_FORMAT,
         "reaches element"},
        {CASE(STATE_DICT(STORAGE("K\6") BIG "))")), BG_ERR_FORMAT, "reaches element"},
        {CASE(STATE_DICT(STORAGE("K\6") "K\0K\2K\3\x86K\4K\1\x86")), BG_ERR_FORMAT,
         "reaches element 6"},
        {CASE(STATE_DICT(STORAGE("K\6") "K\0K\3K\3\x86" BIG "K\1\x86")), BG_ERR_FORMAT,
         "strides overflow"},
        {CASE(STATE_DICT(STORAGE("K\6") "K\0" BIG BIG "\x86K\0K\0\x86")), BG_ERR_FORMAT,
         "shape overflows"},
        {CASE(STATE_DICT(STORAGE("K\6") "K\0" BIG "K\0\x86K\1K\1\x86")), BG_ERR_FORMAT,
         "shape overflows"},
        {CASE(STATE_DICT(STORAGE("K\6") "K\0\x8a\4\0\0\0\1\x85K\0\x85")), BG_ERR_UNSUPPORTED,
         "not in order, and a copy in order takes 67108864 bytes"},
        {CASE(STATE_DICT(STORAGE("K\7") "K\0))")), BG_ERR_FORMAT, "24 bytes"},
        {CASE(STATE_DICT(STORAGE(BIG) "K\0))")), BG_ERR_FORMAT, "24 bytes"},
        {CASE("\x80\x02}X\1\0\0\0aNs."), BG_ERR_UNSUPPORTED, "no tensors"},
        {CASE("\x80\x02}X\5\0\0\0model}s."), BG_ERR_UNSUPPORTED, "no tensors"},
        {CASE("\x80\x02]."), BG_ERR_UNSUPPORTED, "holds a list"},
        {CASE("\x80\x02}K\1" REBUILD STORAGE("K\6") "K\0))tRs."), BG_ERR_FORMAT,
         "name is an integer"},
        {CASE("\x80\x02}X\3\0\0\0a\0b" REBUILD STORAGE("K\6") "K\0))tRs."), BG_ERR_FORMAT, "NUL"},
        {CASE("\x80\x02}X\2\0\0\0\xff!" REBUILD STORAGE("K\6") "K\0))tRs."), BG_ERR_FORMAT,
         "UTF-8"},
        /* a dictionary that holds itself under "model" */
        {CASE("\x80\x02}q\1X\5\0\0\0modelh\1s."), BG_ERR_UNSUPPORTED, "no tensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        archive_entry entries[] = {
            {.name = "x/data.pkl", .data = cases[i].pickle, .size = cases[i].size}, DATA};
        archive a = archive_make(entries, 2, false);
        check_refused(a.data, a.size, cases[i].status, cases[i].says);
        free(a.data);
    }
    /* a name twice is seen where the names are indexed */
    static const char twice[] =
        "\x80\x02}(X\1\0\0\0w" REBUILD STORAGE("K\6") "K\0))tRq\1X\1\0\0\0wh\1u.";
    archive_entry entries[] = {PICKLE(twice), DATA};
    archive a = archive_make(entries, 2, false);
    bg_checkpoint *c;
    bg_error err = {0};
    files_begin();
    files_write("x.bin", a.data, a.size);
    CHECK(bg_checkpoint_open_file(files_path("x.bin"), &c, &err) == BG_ERR_FORMAT, "a name twice");
    CHECK(strstr(err.message, "tensor \"w\" is there twice"), "%s", err.message);
    files_end();
    free(a.data);
}

/* ---- the old format -------------------------------------------------------------------------- */

#define MAGIC           "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19."
#define VERSION         "\x80\x02M\xe9\x03."
#define MACHINE(little) "\x80\x02}X\r\0\0\0little_endian" little "s."
#define KEYS(keys)      "\x80\x02](" keys "e."
#define KEY             "X\1\0\0\0000"
#define BLOCK           "\2\0\0\0\0\0\0\0\0\0\x80?\0\0\0@" /* 1 and 2 */
#define LEGACY          MAGIC VERSION MACHINE("\x88")
#define VECTOR          STATE_DICT(STORAGE("K\2") "K\0K\2\x85K\1\x85")

static void test_legacy(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        bg_status status;
        const char *says;
    } cases[] = {
        {CASE("\x80\x02}q\1."), BG_ERR_UNSUPPORTED, "none that torch.save wrote"},
        {CASE("\x80\x02\x8a\x0am\xfc\x9c\x46\xf9 j\xa8P\x19."), BG_ERR_UNSUPPORTED, "none that"},
        {CASE(MAGIC "\x80\x02M\xe8\x03."), BG_ERR_UNSUPPORTED, "another version"},
        {CASE(MAGIC VERSION "\x80\x02N."), BG_ERR_FORMAT, "byte order"},
        {CASE(MAGIC VERSION "\x80\x02}."), BG_ERR_FORMAT, "byte order"},
        {CASE(MAGIC VERSION MACHINE("\x89")), BG_ERR_UNSUPPORTED, "big-endian"},
        {CASE(LEGACY), BG_ERR_FORMAT, "does not begin"},
        {CASE(LEGACY VECTOR "\x80\x02N."), BG_ERR_FORMAT, "no list of storages"},
        {CASE(LEGACY VECTOR KEYS("")), BG_ERR_FORMAT, "storage \"0\" is not there"},
        {CASE(LEGACY VECTOR KEYS("N")), BG_ERR_FORMAT, "that no tensor is of"},
        {CASE(LEGACY VECTOR KEYS("X\1\0\0\0001") BLOCK), BG_ERR_FORMAT, "that no tensor is of"},
        {CASE(LEGACY VECTOR KEYS(KEY)), BG_ERR_FORMAT, "ends before storage \"0\""},
        {CASE(LEGACY VECTOR KEYS(KEY) "\2\0\0\0\0\0\0\0abc"), BG_ERR_FORMAT, "of 2 elements"},
        {CASE(LEGACY VECTOR KEYS(KEY) "\1\0\0\0\0\0\0\0abcd"), BG_ERR_FORMAT, "has 4 bytes"},
        {CASE(LEGACY VECTOR KEYS(KEY) "\2\0\0\0\0\0\0\x80"), BG_ERR_FORMAT, "ends behind"},
        {CASE(LEGACY VECTOR KEYS(KEY) "\2\0\0\0\0\0\0\x40"), BG_ERR_FORMAT, "ends behind"},
        {CASE(LEGACY VECTOR KEYS(KEY KEY) BLOCK BLOCK), BG_ERR_FORMAT, "\"0\" twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused((const uint8_t *)cases[i].bytes, cases[i].size, cases[i].status,
                      cases[i].says);

    /* a tensor of a part of a storage, as PyTorch before 0.4 wrote it, and the whole beside it */
    static const char parts[] =
        LEGACY "\x80\x02}(X\1\0\0\0p" REBUILD "(X\7\0\0\0storagectorch\nFloatStorage\n" KEY
               "X\3\0\0\0cpuK\2(X\1\0\0\0001K\1K\1ttQ"
               "K\0))tRX\1\0\0\0w" REBUILD STORAGE("K\2") "K\0K\2\x85K\1\x85tRu." KEYS(KEY) BLOCK;
    bg_pytorch file;
    bg_error err = {0};
    CHECK(bg_pytorch_parse((const uint8_t *)parts, sizeof parts - 1, NAME, &file, &err) == BG_OK,
          "%s", err.message);
    if (err.status != BG_OK) return;
    float part, whole[2];
    CHECK(file.count == 2 && file.tensors[0].bytes == 4 && file.tensors[1].bytes == 8, "sizes");
    memcpy(&part, file.tensors[0].data, 4);
    memcpy(whole, file.tensors[1].data, 8);
    CHECK(part == 2 && whole[0] == 1 && whole[1] == 2, "%g, %g %g", part, whole[0], whole[1]);
    bg_pytorch_free(&file);
}

/* ---- memory, and a real model ---------------------------------------------------------------- */

static void test_allocation_failures(void)
{
    for (size_t i = 0; i < N_GOOD; i++) {
        size_t size;
        long n = 0;
        uint8_t *bytes = slurp(good_files[i], &size);
        for (bg_status status = BG_ERR_MEMORY; status != BG_OK && n < 1000; n++) {
            bg_pytorch file;
            bg_error err = {0};
            bg_alloc_fail_after(n);
            status = bg_pytorch_parse(bytes, size, NAME, &file, &err);
            bg_alloc_fail_after(-1);
            CHECK(status == BG_OK || status == BG_ERR_MEMORY, "after %ld: %s", n, err.message);
            bg_pytorch_free(&file);
        }
        CHECK(n > 8 && n < 1000, "%s: %ld allocations", good_files[i], n);
        free(bytes);
        n = 0;
        for (bg_status status = BG_ERR_MEMORY; status != BG_OK && n < 1000; n++) {
            bg_checkpoint *c;
            bg_error err = {0};
            bg_alloc_fail_after(n);
            status = bg_checkpoint_open_file(good_files[i], &c, &err);
            bg_alloc_fail_after(-1);
            CHECK(status == BG_OK || status == BG_ERR_MEMORY, "after %ld: %s", n, err.message);
            bg_checkpoint_close(c);
        }
        CHECK(n > 10 && n < 1000, "%s: %ld allocations", good_files[i], n);
    }
}

/* A model as the Hub has it, if it is beside the repository. The sum is PyTorch's. */
static void test_mini_opt(void)
{
    static const char path[] = "../shared/models/mini-opt";
    if (access(path, R_OK) != 0) {
        SKIP("%s is not there", path);
        return;
    }
    bg_checkpoint *c = NULL;
    bg_error err = {0};
    bg_status status = bg_checkpoint_open(path, &c, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    size_t bytes = 0;
    uint64_t sum = 0; /* of the bits of all fp16 numbers */
    for (size_t i = 0; i < bg_checkpoint_count(c); i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        CHECK(bg_checkpoint_find(c, t->name) == t, "%s is not found", t->name);
        bytes += t->bytes;
        CHECK(t->dtype == BG_F16, "%s is no float16", t->name);
        for (size_t k = 0; k < t->bytes; k += 2) {
            uint16_t value;
            memcpy(&value, (const uint8_t *)t->data + k, 2);
            sum += value;
        }
        bg_checkpoint_release(c, t);
    }
    CHECK(bytes == 18129920 && bg_checkpoint_count(c) == 101, "%zu bytes, %zu", bytes,
          bg_checkpoint_count(c));
    CHECK(sum == 239617180566, "the sum is %llu", (unsigned long long)sum);
    const bg_tensor *t = bg_checkpoint_find(c, "model.decoder.embed_tokens.weight");
    const bg_tensor *head = bg_checkpoint_find(c, "lm_head.weight");
    CHECK(t && t->rank == 2 && t->shape[1] == 256, "embed_tokens");
    CHECK(t && head && t->data == head->data, "the head is not the embedding");
    bg_checkpoint_close(c);
}

int main(void)
{
    RUN(test_equal_to_safetensors);
    RUN(test_used_in_place);
    RUN(test_shards);
    RUN(test_order_of_files);
    RUN(test_inspect);
    RUN(test_other_objects);
    RUN(test_damaged);
    RUN(test_archives);
    RUN(test_tensors);
    RUN(test_legacy);
    RUN(test_allocation_failures);
    RUN(test_mini_opt);
    return test_finish();
}
