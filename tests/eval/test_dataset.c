/* Files of labelled sentences. */
#include "test.h"

#include "eval/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bg_status read_tsv(const char *content, size_t size, int64_t limit, bg_dataset *d,
                          bg_error *err)
{
    char path[] = TEMPORARY;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, content, size) == (ssize_t)size, "a temporary file");
    close(fd);
    bg_status status = bg_dataset_open(path, limit, d, err);
    unlink(path);
    return status;
}

static void test_dataset(void)
{
    bg_dataset d;
    bg_error err;
    static const char good[] = "label\tx\tsentence\r\n1\t\ta b\r\n\n0\tq\tlast";
    CHECK(read_tsv(good, sizeof good - 1, 0, &d, &err) == BG_OK, "%s", err.message);
    CHECK(d.n == 2 && d.examples[0].label == 1 && d.examples[0].size == 3 &&
              memcmp(d.examples[1].text, "last", 4) == 0,
          "columns by name");
    bg_dataset_close(&d);
    CHECK(read_tsv(good, sizeof good - 1, 1, &d, &err) == BG_OK && d.n == 1, "limit");
    bg_dataset_close(&d);
    static const char *const bad[] = {
        "",
        "sentence label\na\t1\n",
        "sentence\tlabel\n",
        "sentence\tlabel\na\n",
        "sentence\tlabel\na\tx\n",
        "sentence\tlabel\na\t-1\n",
        "sentence\tlabel\na\t\n",
        "sentence\tlabel\na\t99999999999\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(read_tsv(bad[i], strlen(bad[i]), 0, &d, &err) == BG_ERR_FORMAT, "%zu", i);
        CHECK(strstr(err.message, "/tmp/bitgauge-test-"), "%s", err.message);
    }
}

int main(void)
{
    RUN(test_dataset);
    return test_finish();
}
