/* The test harness: a test program is a main() that calls RUN on its test functions and returns
 * test_finish(). A failed check says where and goes on; a test that cannot run here says why. */
#ifndef BG_TESTS_TEST_H
#define BG_TESTS_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int test_failures, test_checks, test_skips;

/* What mkstemp and mkdtemp make a name of: `char path[] = TEMPORARY;`. */
#define TEMPORARY "/tmp/bitgauge-test-XXXXXX"

/* CTest reads this exit code as "skipped". */
enum { TEST_SKIPPED = 77 };

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        test_checks++;                                                                             \
        if (!(condition)) {                                                                        \
            test_failures++;                                                                       \
            printf("%s:%d: FAILED: %s:", __FILE__, __LINE__, #condition);                          \
            printf(" " __VA_ARGS__);                                                               \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

#define CHECK_STRING(actual, expected)                                                             \
    CHECK(strcmp((actual), (expected)) == 0, "got \"%s\", expected \"%s\"", (actual), (expected))

#define SKIP(...)                                                                                  \
    do {                                                                                           \
        test_skips++;                                                                              \
        printf("skipped: " __VA_ARGS__);                                                           \
        printf("\n");                                                                              \
    } while (0)

#define RUN(function)                                                                              \
    do {                                                                                           \
        printf("- %s\n", #function);                                                               \
        fflush(stdout);                                                                            \
        function();                                                                                \
    } while (0)

static inline int test_finish(void)
{
    printf("%d checks, %d failed, %d skipped\n", test_checks, test_failures, test_skips);
    if (test_failures) return 1;
    return test_checks == 0 && test_skips ? TEST_SKIPPED : 0;
}

#endif
