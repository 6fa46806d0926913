#include "hub/settings.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/text.h"
#include "hub/names.h"

#include <ctype.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

bg_hub_tuning bg_hub_tune = {.back_off = 1,
                             .part_bytes = (size_t)16 << 20,
                             .unit_bytes = (size_t)1 << 20,
                             .connections = 8,
                             .stall_seconds = 20};

/* The first of the variables (the list ends with NULL) that is set and not empty, or NULL. */
static const char *variable(const char *const *names)
{
    for (; *names; names++) {
        const char *value = getenv(*names);
        if (value && *value) return value;
    }
    return NULL;
}

#define VARIABLE(...) variable((const char *const[]){__VA_ARGS__, NULL})

static bool is_true(const char *value)
{
    static const char *const words[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0) return true;
    return false;
}

static const char *home(void)
{
    const char *value = VARIABLE("HOME");
    const struct passwd *user = value ? NULL : getpwuid(getuid());
    return value ? value : user && user->pw_dir ? user->pw_dir : "/";
}

/* Replaces "~" at the start, and $NAME and ${NAME}, as Python's os.path does it: what is not set
 * stays as it was written. */
static char *expand(const char *path)
{
    bg_text out = {0};
    if (path[0] == '~' && (path[1] == '/' || !path[1])) {
        bg_text_puts(&out, home());
        path++;
    }
    while (*path) {
        bool braces = path[0] == '$' && path[1] == '{';
        const char *name = path + 1 + braces;
        size_t n = 0;
        while (*path == '$' && (isalnum((unsigned char)name[n]) || name[n] == '_')) n++;
        char copy[128];
        const char *value = NULL;
        if (n > 0 && n < sizeof copy && (!braces || name[n] == '}')) {
            memcpy(copy, name, n);
            copy[n] = '\0';
            value = getenv(copy);
        }
        if (value) {
            bg_text_puts(&out, value);
            path = name + n + braces;
        } else {
            bg_text_append(&out, path++, 1);
        }
    }
    if (!out.failed && out.data) return out.data;
    bg_text_free(&out);
    return NULL;
}

/* $HF_HOME, or where it is by default. */
static char *hub_home(void)
{
    const char *value = VARIABLE("HF_HOME");
    if (value) return expand(value);
    value = VARIABLE("XDG_CACHE_HOME");
    char *base = value ? expand(value) : bg_path_join(home(), ".cache");
    char *path = base ? bg_path_join(base, "huggingface") : NULL;
    bg_free(base);
    return path;
}

static char *cache_directory(const char *hf_home)
{
    const char *value = VARIABLE("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE");
    return value ? expand(value) : bg_path_join(hf_home, "hub");
}

/* A token goes into a header: it is one word of printable ASCII, or it is none. */
static bg_status clean_token(char *text, const char *where, char **out, bg_error *err)
{
    char *begin = text + strspn(text, " \t\r\n");
    size_t n = strcspn(begin, " \t\r\n");
    bool one = !begin[n + strspn(begin + n, " \t\r\n")];
    begin[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if (begin[i] <= 0x20 || begin[i] > 0x7E) one = false;
    if (!one)
        return bg_fail(err, BG_ERR_USAGE,
                       "%s: this is no token of the Hub: a token is one word such as hf_abc...; "
                       "correct it or remove it",
                       where);
    if (n == 0) return BG_OK;
    *out = bg_strdup(begin);
    return *out ? BG_OK : bg_fail_memory(err, n, "a token");
}

static bg_status read_token(const char *hf_home, char **out, bg_error *err)
{
    enum { LONGEST_TOKEN_FILE = 4096 };
    if (is_true(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return BG_OK;
    const char *value = VARIABLE("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN");
    const char *where = VARIABLE("HF_TOKEN_PATH");
    char *text = NULL, *path = NULL;
    bg_status status = BG_OK;
    if (value) {
        text = bg_strdup(value);
        if (!text) return bg_fail_memory(err, strlen(value), "HF_TOKEN");
    } else {
        path = where ? expand(where) : bg_path_join(hf_home, "token");
        if (!path) return bg_fail_memory(err, 256, "a file name");
        if (bg_file_exists(path)) status = bg_read_text(path, LONGEST_TOKEN_FILE, &text, NULL, err);
    }
    if (text && status == BG_OK) status = clean_token(text, path ? path : "HF_TOKEN", out, err);
    bg_free(text);
    bg_free(path);
    return status;
}

static bg_status read_endpoint(char **out, bg_error *err)
{
    const char *value = VARIABLE("HF_ENDPOINT");
    if (!value) value = "https://huggingface.co";
    size_t n = strlen(value);
    while (n > 0 && value[n - 1] == '/') n--;
    bool scheme = strncasecmp(value, "https://", 8) == 0 || strncasecmp(value, "http://", 7) == 0;
    for (const char *p = value; *p; p++)
        if (*p <= 0x20 || *p > 0x7E) scheme = false;
    if (scheme) scheme = !strchr("/:", strchr(value, ':')[3]); /* a host behind "://" */
    if (!scheme || strpbrk(value, "?#@"))
        return bg_fail(err, BG_ERR_USAGE,
                       "HF_ENDPOINT=%s: this is no address of a Hub; it looks like "
                       "https://huggingface.co",
                       value);
    *out = bg_strndup(value, n);
    return *out ? BG_OK : bg_fail_memory(err, n, "HF_ENDPOINT");
}

bg_status bg_hub_settings_read(bg_hub_settings *out, bg_error *err)
{
    *out = (bg_hub_settings){0};
    out->offline = is_true(VARIABLE("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"));
    out->ca_file = VARIABLE("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE");
    out->ca_directory = VARIABLE("SSL_CERT_DIR");
    BG_TRY(read_endpoint(&out->endpoint, err));
    char *hf_home = hub_home();
    if (!hf_home) return bg_fail_memory(err, 256, "a file name");
    out->cache = cache_directory(hf_home);
    bg_status status = out->cache ? BG_OK : bg_fail_memory(err, 256, "the name of the Hub's cache");
    if (status == BG_OK && !out->offline) status = read_token(hf_home, &out->token, err);
    bg_free(hf_home);
    return status;
}

void bg_hub_settings_free(bg_hub_settings *settings)
{
    bg_free(settings->endpoint);
    bg_free(settings->cache);
    if (settings->token) explicit_bzero(settings->token, strlen(settings->token));
    bg_free(settings->token);
    *settings = (bg_hub_settings){0};
}
