/* What the tests of the report share. */
#ifndef BG_TESTS_REPORT_SAMPLE_H
#define BG_TESTS_REPORT_SAMPLE_H

#include "core/json.h"
#include "report/report.h"
#include "test.h"

#include <stdlib.h>

static const bg_report_format every_format[] = {BG_REPORT_TABLE, BG_REPORT_JSON, BG_REPORT_CSV,
                                                BG_REPORT_MARKDOWN, BG_REPORT_HTML};
enum { FORMATS = sizeof every_format / sizeof *every_format };

static inline json_t *load_sample(void)
{
    bg_error err;
    json_t *document = NULL;
    if (bg_json_load("tests/report/sample.json", 1 << 24, &document, &err) != BG_OK) {
        printf("cannot go on: %s\n", err.message);
        exit(1);
    }
    return document;
}

/* Renders or fails the test; never NULL. Release with bg_text_free. */
static inline bg_text rendered(const json_t *document, bg_report_format format, int width)
{
    bg_error err = {0};
    bg_text out = {0};
    bg_status status = bg_report_render(document, format, width, &out, &err);
    CHECK(status == BG_OK, "format %d: %s", (int)format, err.message);
    if (!out.data) bg_text_puts(&out, "");
    return out;
}

static inline json_t *parsed(const char *text)
{
    bg_error err;
    json_t *document = NULL;
    CHECK(bg_json_parse(text, strlen(text), "test", &document, &err) == BG_OK, "%s", err.message);
    return document;
}

#define CHECK_HAS(text, part)   CHECK(strstr((text).data, (part)), "no \"%s\" in the report", (part))
#define CHECK_LACKS(text, part) CHECK(!strstr((text).data, (part)), "\"%s\" is there", (part))

#endif
