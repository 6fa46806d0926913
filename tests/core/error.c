/* Error messages: filled, cut, made safe for a terminal and for JSON. */
#include "test.h"

#include "core/error.h"

#include <jansson.h>
#include <stdlib.h>

static bool is_utf8(const char *s)
{
    json_t *value = json_string(s); /* refuses what is not */
    json_decref(value);
    return value != NULL;
}

static void test_fill(void)
{
    bg_error err;
    memset(&err, 'x', sizeof err);
    CHECK(bg_fail(&err, BG_ERR_FORMAT, "%s: byte %d", "file", 7) == BG_ERR_FORMAT, "status");
    CHECK(err.status == BG_ERR_FORMAT, "%d", err.status);
    CHECK_STRING(err.message, "file: byte 7");
    CHECK(bg_fail(NULL, BG_ERR_USAGE, "%d", 1) == BG_ERR_USAGE, "without a bg_error");
    CHECK(bg_fail_memory(&err, 3 * 1048576, "weights") == BG_ERR_MEMORY, "status");
    CHECK(strstr(err.message, "3.0 MiB for weights"), "%s", err.message);
}

static void test_context(void)
{
    bg_error err;
    bg_fail(&err, BG_ERR_FILE, "cannot open");
    CHECK(bg_error_context(&err, "row %d", 3) == BG_ERR_FILE, "status");
    CHECK_STRING(err.message, "row 3: cannot open");
    CHECK(bg_error_context(NULL, "row") == BG_ERR_INTERNAL, "without a bg_error");
    /* contexts pile up, and nothing is written behind the message */
    for (int i = 0; i < 300; i++) bg_error_context(&err, "context \xe2\x82\xac %d", i);
    CHECK(strlen(err.message) < sizeof err.message, "not terminated");
    CHECK(strncmp(err.message, "context \xe2\x82\xac 299: context", 24) == 0, "%s", err.message);
    CHECK(is_utf8(err.message), "%s", err.message);
    char large[5000];
    memset(large, 'y', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    CHECK(bg_error_context(&err, "%s", large) == BG_ERR_FILE, "status");
    CHECK(strlen(err.message) == sizeof err.message - 1, "%zu", strlen(err.message));
}

/* Cut at the capacity, at each phase of a character of 2, 3 and 4 bytes. */
static void test_cut(void)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    for (size_t c = 0; c < 3; c++) {
        for (size_t phase = 0; phase < 4; phase++) {
            char text[3000] = "";
            size_t width = strlen(characters[c]), used = phase;
            memset(text, 'a', phase);
            for (; used + width < 2000; used += width) memcpy(text + used, characters[c], width);
            bg_error err;
            bg_fail(&err, BG_ERR_FILE, "%s", text);
            size_t whole = (sizeof err.message - 1 - phase) / width * width + phase;
            CHECK(strlen(err.message) == whole, "%zu, not %zu", strlen(err.message), whole);
            CHECK(memcmp(err.message, text, whole) == 0, "changed");
            CHECK(is_utf8(err.message), "half a character is left");
        }
    }
    /* a message that just fits loses nothing */
    bg_error err;
    char exact[sizeof err.message];
    memset(exact, 'a', sizeof exact);
    memcpy(exact + sizeof exact - 4, "\xe2\x82\xac", 4);
    bg_fail(&err, BG_ERR_FILE, "%s", exact);
    CHECK_STRING(err.message, exact);
}

static void test_hostile_bytes(void)
{
    static const struct {
        const char *bytes, *shown;
    } cases[] = {
        {"a\x1b[2Jb\nc\rd\te\x7f", "a?[2Jb?c?d?e?"},
        {"caf\xc3\xa9 \xf0\x9f\x98\x80", "caf\xc3\xa9 \xf0\x9f\x98\x80"},
        {"\xc2\x9b"
         "2J\xc2\xa0",
         "??2J\xc2\xa0"},
        {"\xff\xfe", "??"},
        {"\x80"
         "a\xbf",
         "?a?"},
        {"a\xc3", "a?"},
        {"\xe2\x82", "??"},
        {"\xe2\x82"
         "a",
         "??a"},
        {"\xc0\xaf", "??"},           /* an overlong '/' */
        {"\xe0\x80\xaf", "???"},      /* and a longer one */
        {"\xf0\x80\x80\xaf", "????"}, /* and another */
        {"\xed\xa0\x80", "???"},      /* a surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", "????"},
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_error err;
        bg_fail(&err, BG_ERR_FORMAT, "%s", cases[i].bytes);
        CHECK_STRING(err.message, cases[i].shown);
    }
    srand(1);
    for (int round = 0; round < 2000; round++) {
        char noise[1500];
        bg_error err;
        size_t n = (size_t)rand() % (sizeof noise - 1);
        for (size_t i = 0; i < n; i++) noise[i] = (char)(1 + rand() % 255);
        noise[n] = '\0';
        bg_fail(&err, BG_ERR_FORMAT, "%s", noise);
        CHECK(is_utf8(err.message), "round %d", round);
        CHECK(strcspn(err.message, "\x1b\n\r\x7f") == strlen(err.message), "round %d", round);
    }
}

int main(void)
{
    RUN(test_fill);
    RUN(test_context);
    RUN(test_cut);
    RUN(test_hostile_bytes);
    return test_finish();
}
