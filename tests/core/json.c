/* JSON from files that are not trusted, and typed look-ups in it. */
#include "test.h"

#include "core/alloc.h"
#include "core/json.h"

#include <stdlib.h>
#include <unistd.h>

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    bg_error err = {0};
    CHECK(bg_json_parse(text, strlen(text), "here", &value, &err) == BG_OK, "%s", err.message);
    return value;
}

static void check_refused(const char *text, size_t size, const char *says)
{
    json_t *value = NULL;
    bg_error err = {0};
    CHECK(bg_json_parse(text, size, "here", &value, &err) == BG_ERR_FORMAT, "%.40s", text);
    CHECK(!value, "a value is left");
    CHECK(strncmp(err.message, "here: ", 6) == 0 && strstr(err.message, says), "%s", err.message);
}

static void test_parse(void)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\" 1}",
                                      "nul",
                                      "1 2",
                                      "\"a",
                                      "'a'",
                                      "[1] x",
                                      "{1:2}",
                                      "\"\xff\"",
                                      "\"\xc0\xaf\"",
                                      "\"\\ud800\"",
                                      "\"\\u0000\"",
                                      "\"a\nb\"",
                                      "NaN",
                                      "+1",
                                      "01",
                                      "1e999",
                                      "99999999999999999999",
                                      "{\"a\":1,\"a\":2}",
                                      "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_refused(bad[i], strlen(bad[i]), "line 1");
    check_refused("[1,\n2,\n}", 8, "line 3, column 1");
    check_refused("[1]\0", 4, "line 1"); /* a NUL is no white space */
    /* the size counts, not a NUL behind it */
    json_t *value = NULL;
    bg_error err = {0};
    CHECK(bg_json_parse("[1]]", 3, "here", &value, &err) == BG_OK, "%s", err.message);
    json_decref(value);
    json_decref(parse("7"));
    json_decref(parse("null"));
    json_decref(parse(" {\"a\":[\"\xc3\xa9\"]}\n"));
}

static void test_deep(void)
{
    enum { DEPTH = 100000 };
    char *text = malloc(2 * DEPTH);
    memset(text, '[', DEPTH);
    memset(text + DEPTH, ']', DEPTH);
    check_refused(text, 2 * DEPTH, "depth");
    json_t *value = NULL;
    bg_error err = {0};
    CHECK(bg_json_parse(text + DEPTH - 1000, 2000, "here", &value, &err) == BG_OK, "%s",
          err.message);
    json_decref(value);
    free(text);
}

static void test_int(void)
{
    json_t *o = parse("{\"i\":5,\"n\":null,\"r\":4096.0,\"h\":1.5,\"s\":\"5\",\"b\":true,"
                      "\"max\":9223372036854775807,\"min\":-9223372036854775808,"
                      "\"big\":9.3e18,\"edge\":9223372036854775808.0,\"p53\":9007199254740993}");
    int64_t out = 0;
    bg_error err = {0};
    CHECK(bg_json_int(o, "i", "here", 0, 10, -1, true, &out, &err) == BG_OK && out == 5, "i");
    CHECK(bg_json_int(o, "i", "here", 5, 5, -1, true, &out, &err) == BG_OK && out == 5, "i");
    CHECK(bg_json_int(o, "r", "here", 0, 5000, -1, true, &out, &err) == BG_OK && out == 4096, "r");
    CHECK(bg_json_int(o, "n", "here", 0, 10, -1, false, &out, &err) == BG_OK && out == -1, "n");
    CHECK(bg_json_int(o, "x", "here", 0, 10, -2, false, &out, &err) == BG_OK && out == -2, "x");
    CHECK(bg_json_int(o, "max", "here", 0, INT64_MAX, 0, true, &out, &err) == BG_OK &&
              out == INT64_MAX,
          "max");
    CHECK(bg_json_int(o, "min", "here", INT64_MIN, 0, 0, true, &out, &err) == BG_OK &&
              out == INT64_MIN,
          "min");
    /* exact where a double is not: 2^53 + 1 is more than 2^53 */
    CHECK(bg_json_int(o, "p53", "here", 0, 9007199254740992, 0, true, &out, &err) == BG_ERR_FORMAT,
          "2^53 + 1");
    static const char *const bad[] = {"h", "s", "b", "max", "min", "big", "edge"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bg_status status = bg_json_int(o, bad[i], "here", 0, INT64_MAX - 1, 0, false, &out, &err);
        CHECK(status == BG_ERR_FORMAT, "%s", bad[i]);
        CHECK(strncmp(err.message, "here: ", 6) == 0 && strstr(err.message, bad[i]), "%s",
              err.message);
    }
    CHECK(bg_json_int(o, "i", "here", 6, 10, 0, true, &out, &err) == BG_ERR_FORMAT, "too small");
    CHECK(strstr(err.message, "\"i\" must be a whole number from 6 to 10"), "%s", err.message);
    CHECK(bg_json_int(o, "x", "here", 0, 1, 0, true, &out, &err) == BG_ERR_FORMAT, "required");
    CHECK(strstr(err.message, "\"x\" is missing"), "%s", err.message);
    CHECK(bg_json_int(o, "n", "here", 0, 1, 0, true, &out, &err) == BG_ERR_FORMAT, "required");
    json_decref(o);
}

static void test_others(void)
{
    json_t *o = parse("{\"i\":5,\"r\":0.5,\"b\":true,\"f\":false,\"s\":\"text\",\"n\":null}");
    bg_error err = {0};
    double real;
    bool flag;
    const char *text;
    CHECK(bg_json_real(o, "r", "here", 9, &real, &err) == BG_OK && real == 0.5, "r");
    CHECK(bg_json_real(o, "i", "here", 9, &real, &err) == BG_OK && real == 5, "i");
    CHECK(bg_json_real(o, "n", "here", 9, &real, &err) == BG_OK && real == 9, "n");
    CHECK(bg_json_real(o, "s", "here", 9, &real, &err) == BG_ERR_FORMAT, "s");
    CHECK_STRING(err.message, "here: \"s\" must be a number; correct the file");
    CHECK(bg_json_bool(o, "b", "here", false, &flag, &err) == BG_OK && flag, "b");
    CHECK(bg_json_bool(o, "f", "here", true, &flag, &err) == BG_OK && !flag, "f");
    CHECK(bg_json_bool(o, "x", "here", true, &flag, &err) == BG_OK && flag, "x");
    CHECK(bg_json_bool(o, "i", "here", true, &flag, &err) == BG_ERR_FORMAT, "i");
    CHECK_STRING(err.message, "here: \"i\" must be true or false; correct the file");
    CHECK(bg_json_string(o, "s", "here", "f", &text, &err) == BG_OK, "s");
    CHECK_STRING(text, "text");
    CHECK(bg_json_string(o, "n", "here", "f", &text, &err) == BG_OK, "n");
    CHECK_STRING(text, "f");
    CHECK(bg_json_string(o, "x", "here", NULL, &text, &err) == BG_OK && !text, "x");
    CHECK(bg_json_string(o, "i", "here", "f", &text, NULL) == BG_ERR_FORMAT, "i");
    /* look-ups in what is no object find nothing */
    CHECK(bg_json_string(json_null(), "s", "here", "f", &text, &err) == BG_OK, "null");
    json_decref(o);
}

static void test_load(void)
{
    char path[] = TEMPORARY;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, "{\"a\":1}", 7) == 7, "%s", path);
    close(fd);
    json_t *value = NULL;
    bg_error err = {0};
    CHECK(bg_json_load(path, 7, &value, &err) == BG_OK, "%s", err.message);
    CHECK(json_integer_value(json_object_get(value, "a")) == 1, "a");
    json_decref(value);
    CHECK(bg_json_load(path, 6, &value, &err) == BG_ERR_FORMAT, "more than the limit");
    CHECK(strstr(err.message, path) && strstr(err.message, "7 bytes"), "%s", err.message);
    unlink(path);
    CHECK(bg_json_load(path, 7, &value, &err) == BG_ERR_FILE, "not there");
    CHECK(strstr(err.message, path), "%s", err.message);
}

static void test_allocation_failures(void)
{
    static const char text[] = "{\"a\":[1,2.5,\"s\",null,true,{\"b\":{}}],\"long\":"
                               "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18],\"\\u00e9\":\"\"}";
    bg_status status = BG_ERR_MEMORY;
    long n = 0;
    for (; status != BG_OK && n < 10000; n++) {
        json_t *value = NULL;
        bg_error err = {0};
        bg_alloc_fail_after(n);
        status = bg_json_parse(text, strlen(text), "here", &value, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "after %ld: %s", n, err.message);
        json_decref(value);
    }
    CHECK(n > 20 && n < 10000, "%ld allocations", n);
}

int main(void)
{
    RUN(test_parse);
    RUN(test_deep);
    RUN(test_int);
    RUN(test_others);
    RUN(test_load);
    RUN(test_allocation_failures);
    return test_finish();
}
