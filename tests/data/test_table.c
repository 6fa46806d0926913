/* Data files of every kind against what their writers say is in them (tests/fixtures/make_data.py),
 * cell by cell; and cells as the types that are asked for. */
#include "data/table.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/json.h"
#include "data/reader.h"
#include "test.h"

#include <stdint.h>
#include <stdlib.h>

#define FIXTURES "tests/fixtures/data/"

static json_t *load_expected(void)
{
    char *text = NULL;
    size_t size, used;
    bg_error err = {0};
    json_t *json = NULL;
    bg_status status = bg_read_text(FIXTURES "expected.json", 1 << 24, &text, &size, &err);
    if (status == BG_OK) status = bg_json_parse_next(text, size, "expected", 1, &used, &json, &err);
    CHECK(status == BG_OK, "%s", err.message);
    bg_free(text);
    return json;
}

static bool same(const bg_value *v, const json_t *json)
{
    switch (v->kind) {
    case BG_VALUE_NULL:
        return json_is_null(json);
    case BG_VALUE_BOOL:
        return json_is_boolean(json) && v->boolean == json_is_true(json);
    case BG_VALUE_INT:
        return json_is_integer(json) && v->integer == json_integer_value(json);
    case BG_VALUE_REAL:
        return json_is_real(json) && v->real == json_real_value(json);
    case BG_VALUE_STRING:
        return json_is_string(json) && v->size == json_string_length(json) &&
               memcmp(v->string, json_string_value(json), v->size) == 0;
    case BG_VALUE_LIST:
        break;
    }
    bool equal = json_is_array(json) && v->size == json_array_size(json);
    for (size_t i = 0; equal && i < v->size; i++)
        equal = same(&v->list[i], json_array_get(json, i));
    return equal;
}

static void compare(const char *name, const json_t *wanted)
{
    char path[256];
    bg_table *t;
    bg_error err = {0};
    json_t *columns = json_object_get(wanted, "columns"), *cells;
    const char *key;
    snprintf(path, sizeof path, FIXTURES "%s", name);
    CHECK(bg_table_open(path, &t, &err) == BG_OK, "%s", err.message);
    if (!t) return;
    CHECK((json_int_t)bg_table_rows(t) == json_integer_value(json_object_get(wanted, "rows")),
          "%s: %zu rows", name, bg_table_rows(t));
    CHECK(bg_table_columns(t) == json_object_size(columns), "%s: %zu columns", name,
          bg_table_columns(t));
    json_object_foreach(columns, key, cells)
    {
        const bg_column *column = NULL;
        CHECK(bg_table_has(t, key), "%s: %s", name, key);
        CHECK(bg_table_column(t, key, &column, &err) == BG_OK, "%s", err.message);
        size_t different = 0, first = 0;
        for (size_t i = bg_table_rows(t); column && i-- > 0;)
            if (!same(&column->cells[i], json_array_get(cells, i))) {
                different++;
                first = i;
            }
        CHECK(different == 0, "%s: %zu cells of \"%s\" differ, the first in row %zu", name,
              different, key, first);
    }
    bg_table_close(t);
}

static void test_fixtures(void)
{
    json_t *expected = load_expected(), *index;
    const char *name;
    json_object_foreach(json_object_get(expected, "files"), name, index)
    {
        json_t *tables = json_object_get(expected, "tables");
        compare(name, json_array_get(tables, (size_t)json_integer_value(index)));
    }
    json_decref(expected);
}

static void test_refused(void)
{
    json_t *expected = load_expected(), *words;
    const char *name;
    json_object_foreach(json_object_get(expected, "refused"), name, words)
    {
        char path[256];
        bg_table *t;
        bg_error err = {0};
        const bg_column *column;
        snprintf(path, sizeof path, FIXTURES "%s", name);
        CHECK(bg_table_open(path, &t, &err) == BG_OK, "%s", err.message);
        if (!t) continue;
        CHECK(bg_table_column(t, "t", &column, &err) == BG_ERR_UNSUPPORTED, "%s", name);
        CHECK(strstr(err.message, json_string_value(words)) && strstr(err.message, path) &&
                  strstr(err.message, "column \"t\""),
              "%s", err.message);
        bg_table_close(t);
    }
    json_decref(expected);
}

/* ---- what is in text ------------------------------------------------------------------------- */

static bg_status open_text(const char *name, const char *text, bg_table **t, bg_error *err)
{
    return bg_table_open_bytes(text, strlen(text), name, t, err);
}

static void test_broken_text(void)
{
    static const struct {
        const char *name, *text, *message;
    } files[] = {
        {"a.tsv", "", "a.tsv, line 1: "},
        {"a.tsv", "\nx\n", "a.tsv, line 1: "},
        {"a.csv", "", "a.csv, line 1: "},
        {"a.csv", "\r\n\n", "a.csv, line 1: "},
        {"a.csv", "a,b\n1,2\n\n3\n", "a.csv, line 4: 1 fields"},
        {"a.csv", "a,b\r1,2\r1,2,3\r", "a.csv, line 3: 3 fields"},
        {"a.csv", "a,b\n\"x\ny\",2\n3,\"4\n5,6\n", "a.csv, line 4: a quotation mark"},
        {"a.csv", "a,b\n\"x\"y,2\n", "a.csv, line 2: a field"},
        {"a.csv", "a,\"b", "a.csv, line 1: a quotation mark"},
        {"a.jsonl", "{\"a\":1}\n\n{\"a\":\n2}", "a.jsonl: not valid JSON at line 3"},
        {"a.jsonl", "{\"a\":1}\n{\"a\":2} {}\n", "a.jsonl, line 2: "},
        {"a.jsonl", "{\"a\":1,\"a\":2}", "duplicate"},
        {"a.jsonl", "{\"a\":1}\n7\n", "a.jsonl, line 2: expected an object"},
        {"a.jsonl", "{\"a\":1}\n[{}]\n", "a.jsonl, line 2: expected an object"},
        {"a.jsonl", "{\"a\":99999999999999999999}", "too big"},
        {"a.json", "[{\"a\":1},\n{\"a\":2}\n", "a.json, line 3: "},
        {"a.json", "[{\"a\":1}\n{\"a\":2}]", "a.json, line 2: "},
        {"a.json", "[{\"a\":1},\n\n3]", "a.json, line 3: "},
        {"a.json", "[{\"a\":1},]", "a.json: not valid JSON at line 1"},
        {"a.json", "[{}]\n\n]", "a.json, line 3: "},
        {"a.json", "[", "a.json: not valid JSON"},
        {"a.parquet", "{}", "a.parquet: "},
        {"a.txt.gz", "\x1f\x8b\x08", "a.txt.gz: the gzip data"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bg_table *t;
        bg_error err = {0};
        CHECK(open_text(files[i].name, files[i].text, &t, &err) == BG_ERR_FORMAT && !t, "%zu", i);
        CHECK(strstr(err.message, files[i].message), "%zu: %s", i, err.message);
    }
}

/* A column that must be there. */
static const bg_column *want(bg_table *t, const char *name)
{
    const bg_column *column;
    bg_error err = {0};
    if (bg_table_column(t, name, &column, &err) == BG_OK) return column;
    printf("%s\n", err.message);
    exit(EXIT_FAILURE);
}

static void check_string(bg_table *t, const char *name, size_t row, const char *wanted)
{
    const char *string = "";
    size_t size = 0;
    bg_error err = {0};
    CHECK(bg_column_string(want(t, name), row, &string, &size, &err) == BG_OK, "%s", err.message);
    CHECK(size == strlen(wanted) && memcmp(string, wanted, size) == 0, "got %.*s, expected %s",
          (int)size, string, wanted);
}

static void test_text(void)
{
    bg_table *t;
    bg_error err = {0};
    CHECK(open_text("a.csv", "\xef\xbb\xbf a ,\"q\"\"\"\r\n\r\n\"1\r\n\",x\"y\n,", &t, &err) ==
              BG_OK,
          "%s", err.message);
    CHECK(bg_table_rows(t) == 2 && bg_table_columns(t) == 2, "rows");
    check_string(t, " a ", 0, "1\r\n");
    check_string(t, "q\"", 0, "x\"y");
    check_string(t, " a ", 1, "");
    bg_table_close(t);

    /* nothing is quoted in .tsv; the last line needs no end; empty lines are no rows */
    CHECK(open_text("a.TSV", "a\tb\r\"x\t\\t\r\n\n\ny\t", &t, &err) == BG_OK, "%s", err.message);
    CHECK(bg_table_rows(t) == 2, "rows");
    check_string(t, "a", 0, "\"x");
    check_string(t, "b", 0, "\\t");
    check_string(t, "b", 1, "");
    bg_table_close(t);

    /* lines of the wrong width are found when a column is read */
    const bg_column *column;
    CHECK(open_text("a.tsv", "a\tb\n1\t2\n1\n", &t, &err) == BG_OK, "%s", err.message);
    CHECK(bg_table_column(t, "a", &column, &err) == BG_ERR_FORMAT &&
              strstr(err.message, "a.tsv, line 3: 1 fields"),
          "%s", err.message);
    bg_table_close(t);
}

static void test_kind(void)
{
    static const struct {
        const char *name, *text, *column;
    } files[] = {
        {"x", "sentence\tlabel\na\t1\n", "label"},
        {"x", "{\"k\":1}", "k"},
        {"x.raw", " = a =\n\tb\n", "text"},
        {"x.txt", "{\"k\":\t1}", "text"},
        {"dir.csv/x", "a,b", "text"},
        {"x.CSV", "a,b", "b"},
        {"x.ndjson", "{\"k\":1}", "k"},
        {"", "", "text"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bg_table *t;
        bg_error err = {0};
        CHECK(open_text(files[i].name, files[i].text, &t, &err) == BG_OK, "%s", err.message);
        CHECK(t && bg_table_has(t, files[i].column), "%zu", i);
        bg_table_close(t);
    }
}

/* ---- cells ----------------------------------------------------------------------------------- */

static void test_cells(void)
{
    static const char text[] =
        "{\"i\":-7,\"s\":\"-12\",\"b\":true,\"r\":2.5,\"l\":[\"x\",\"\"],\"t\":\"FALSE\"}\n"
        "{\"i\":0,\"s\":\"9223372036854775808\",\"b\":null,\"r\":\"1e3\",\"l\":[\"x\",null],"
        "\"t\":\"yes\"}\n";
    bg_table *t;
    bg_error err = {0};
    const bg_value *strings;
    int64_t whole = 0;
    double real = 0;
    bool truth = false;
    size_t n = 0;
    CHECK(open_text("c.jsonl", text, &t, &err) == BG_OK, "%s", err.message);
    const bg_column *i = want(t, "i"), *s = want(t, "s"), *b = want(t, "b");
    const bg_column *r = want(t, "r"), *l = want(t, "l"), *word = want(t, "t");
    CHECK(!bg_column_int(i, 0, &whole, &err) && whole == -7, "%lld", (long long)whole);
    CHECK(!bg_column_int(s, 0, &whole, &err) && whole == -12, "%lld", (long long)whole);
    CHECK(!bg_column_int(b, 0, &whole, &err) && whole == 1, "%lld", (long long)whole);
    CHECK(!bg_column_real(i, 0, &real, &err) && real == -7, "%g", real);
    CHECK(!bg_column_real(r, 0, &real, &err) && real == 2.5, "%g", real);
    CHECK(!bg_column_real(r, 1, &real, &err) && real == 1000, "%g", real);
    CHECK(!bg_column_bool(b, 0, &truth, &err) && truth, "true");
    CHECK(!bg_column_bool(word, 0, &truth, &err) && !truth, "FALSE");
    CHECK(!bg_column_bool(i, 1, &truth, &err) && !truth, "0");
    CHECK(!bg_column_strings(l, 0, &strings, &n, &err) && n == 2 && strings[0].size == 1 &&
              *strings[0].string == 'x' && strings[1].size == 0,
          "strings");

    CHECK(bg_column_int(s, 1, &whole, &err) == BG_ERR_FORMAT, "too large");
    CHECK_STRING(err.message,
                 "c.jsonl, line 2: \"s\" must be a whole number, but is \"9223372036854775808\"");
    CHECK(bg_column_bool(b, 1, &truth, &err) == BG_ERR_FORMAT, "null");
    CHECK_STRING(err.message, "c.jsonl, line 2: \"b\" must be true or false, but is nothing");
    CHECK(bg_column_int(r, 0, &whole, &err) && bg_column_real(word, 0, &real, &err) &&
              bg_column_bool(i, 0, &truth, &err) && bg_column_bool(word, 1, &truth, &err) &&
              bg_column_strings(l, 1, &strings, &n, &err) &&
              bg_column_strings(s, 1, &strings, &n, &err),
          "cells of another type");
    const char *string;
    CHECK(bg_column_string(l, 1, &string, &n, &err) == BG_ERR_FORMAT, "a list");
    CHECK_STRING(err.message, "c.jsonl, line 2: \"l\" must be a string, but is a list");

    CHECK(bg_table_column(t, "x", &i, &err) == BG_ERR_FORMAT, "no column");
    CHECK_STRING(err.message, "c.jsonl: there is no column \"x\"; its columns are \"i\", \"s\", "
                              "\"b\", \"r\", \"l\", \"t\"");
    CHECK(bg_table_fail(t, 1, &err, "label %d", 5) == BG_ERR_FORMAT, "status");
    CHECK_STRING(err.message, "c.jsonl, line 2: label 5");
    bg_table_close(t);

    CHECK(open_text("d.csv", "a,b,a\n1,2,3\n", &t, &err) == BG_OK, "%s", err.message);
    CHECK(bg_table_column(t, "a", &i, &err) == BG_ERR_FORMAT &&
              strstr(err.message, "2 columns are named \"a\""),
          "%s", err.message);
    bg_table_close(t);
}

static void test_hub(void)
{
    bg_table *t;
    bg_error err = {0};
    const bg_column *column = NULL;
    const bg_value *strings = NULL;
    size_t n = 0;
    CHECK(bg_table_open(FIXTURES "hub.parquet", &t, &err) == BG_OK, "%s", err.message);
    if (!t) return;
    check_string(t, "answerKey", 1, "2");
    CHECK(!bg_table_column(t, "choices.text", &column, &err) &&
              !bg_column_strings(column, 1, &strings, &n, &err) && n == 3 &&
              memcmp(strings[2].string, "snow", 4) == 0,
          "%s", err.message);
    CHECK(bg_table_fail(t, 1, &err, "bad") && strstr(err.message, "hub.parquet, row 2: bad"), "%s",
          err.message);
    bg_table_close(t);
    CHECK(bg_table_open(FIXTURES "none.parquet", &t, &err) == BG_ERR_FILE && !t, "no file");
}

/* ---- rows that differ ------------------------------------------------------------------------ */

static void test_uneven_json(void)
{
    static const char text[] = "{\"a\":{\"b\":1},\"l\":[]}\n"
                               "{\"a\":2,\"l\":[{\"x\":1},{\"y\":[2]},3]}\n"
                               "{\"a\":null,\"l\":[null]}\n{}\n";
    bg_table *t;
    bg_error err = {0};
    CHECK(open_text("u.jsonl", text, &t, &err) == BG_OK, "%s", err.message);
    CHECK(bg_table_columns(t) == 4, "%zu columns", bg_table_columns(t));
    const bg_column *a = want(t, "a"), *b = want(t, "a.b");
    const bg_column *x = want(t, "l.x"), *y = want(t, "l.y");
    CHECK(a->cells[0].kind == BG_VALUE_NULL && a->cells[1].integer == 2, "a");
    CHECK(b->cells[0].integer == 1 && b->cells[1].kind == BG_VALUE_NULL, "a.b");
    CHECK(x->cells[0].kind == BG_VALUE_LIST && x->cells[0].size == 0, "no objects");
    CHECK(x->cells[1].size == 3 && x->cells[1].list[0].integer == 1 &&
              x->cells[1].list[1].kind == BG_VALUE_NULL &&
              x->cells[1].list[2].kind == BG_VALUE_NULL,
          "l.x");
    CHECK(y->cells[1].list[1].kind == BG_VALUE_LIST && y->cells[1].list[1].list[0].integer == 2,
          "l.y");
    CHECK(x->cells[2].size == 1 && x->cells[2].list[0].kind == BG_VALUE_NULL, "a null object");
    CHECK(x->cells[3].kind == BG_VALUE_NULL, "nothing");
    bg_table_close(t);
}

int main(void)
{
    RUN(test_fixtures);
    RUN(test_refused);
    RUN(test_broken_text);
    RUN(test_text);
    RUN(test_kind);
    RUN(test_cells);
    RUN(test_hub);
    RUN(test_uneven_json);
    return test_finish();
}
