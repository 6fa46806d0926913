#include "hub/http.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "hub/names.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

static CURLcode global_result;

static void start_curl(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

bg_status bg_http_open(const bg_hub_settings *settings, bg_progress progress, bg_http *out,
                       bg_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = (bg_http){.settings = settings, .progress = progress};
    pthread_once(&once, start_curl);
    if (global_result != CURLE_OK)
        return bg_fail(err, BG_ERR_INTERNAL, "libcurl cannot be used: %s",
                       curl_easy_strerror(global_result));
    out->multi = curl_multi_init();
    return out->multi ? BG_OK : bg_fail_memory(err, sizeof *out, "connections to the Hub");
}

void bg_http_close(bg_http *http)
{
    if (http->multi) curl_multi_cleanup(http->multi);
    http->multi = NULL;
}

bg_status bg_http_report(const bg_http *http, uint64_t done, uint64_t total, bg_error *err)
{
    if (!http->progress.call ||
        http->progress.call(http->progress.context, http->stage, done, total))
        return BG_OK;
    return bg_fail(err, BG_ERR_INTERRUPTED,
                   "interrupted; what was downloaded is kept, the same command goes on with it");
}

bg_status bg_http_note(const bg_http *http, bg_error *err, const char *format, ...)
{
    char text[sizeof err->message];
    bg_error tidy; /* as a message of an error is: bytes of a server may be in it */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bg_fail(&tidy, BG_OK, BG_STAGE_NOTE "%s", text);
    const bg_progress *progress = &http->progress;
    if (!progress->call || progress->call(progress->context, tidy.message, 0, 0)) return BG_OK;
    return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted");
}

bg_status bg_http_wait(const bg_http *http, double seconds, bg_error *err)
{
    const double slice = 0.05, end = bg_seconds() + seconds;
    for (double left = seconds; left > 0; left = end - bg_seconds()) {
        struct timespec t = {.tv_nsec = (long)(1e9 * (left < slice ? left : slice))};
        BG_TRY(bg_http_report(http, 0, 0, err));
        nanosleep(&t, NULL);
    }
    return BG_OK;
}

/* ---- URLs ------------------------------------------------------------------------------------ */

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
    char *x = NULL, *y = NULL;
    bool same = curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK && strcasecmp(x, y) == 0;
    curl_free(x);
    curl_free(y);
    return same;
}

bool bg_http_same_origin(const char *a, const char *b)
{
    CURLU *x = curl_url(), *y = curl_url();
    bool same = x && y && curl_url_set(x, CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(y, CURLUPART_URL, b, 0) == CURLUE_OK &&
                same_part(x, y, CURLUPART_SCHEME) && same_part(x, y, CURLUPART_HOST) &&
                same_part(x, y, CURLUPART_PORT);
    curl_url_cleanup(x);
    curl_url_cleanup(y);
    return same;
}

static bool is_plain_http(const char *url)
{
    return strncasecmp(url, "http://", 7) == 0;
}

bg_status bg_http_resolve(const bg_http *http, const char *base, const char *location, char **out,
                          bg_error *err)
{
    CURLU *url = curl_url();
    char *full = NULL;
    *out = NULL;
    if (!url) return bg_fail_memory(err, strlen(location), "an address");
    bool good = curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
                curl_url_set(url, CURLUPART_URL, location, 0) == CURLUE_OK &&
                curl_url_set(url, CURLUPART_USER, NULL, 0) == CURLUE_OK &&
                curl_url_set(url, CURLUPART_PASSWORD, NULL, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_URL, &full, 0) == CURLUE_OK;
    curl_url_cleanup(url);
    bg_status status = BG_OK;
    bool allowed = good && (strncasecmp(full, "https://", 8) == 0 ||
                            (is_plain_http(full) && is_plain_http(http->settings->endpoint)));
    if (!good || !allowed)
        status =
            bg_fail(err, BG_ERR_FILE, "%s redirects to %.200s, %s; check HF_ENDPOINT and the proxy",
                    base, location, good ? "which is not encrypted" : "which is no address");
    else if (!(*out = bg_strdup(full)))
        status = bg_fail_memory(err, strlen(full), "an address");
    curl_free(full);
    return status;
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer) *list = longer;
    return longer;
}

bg_status bg_http_request(const bg_http *http, const char *url, char *problem, CURL **out,
                          struct curl_slist **headers, bg_error *err)
{
    const bg_hub_settings *s = http->settings;
    CURL *easy = curl_easy_init();
    *out = easy;
    *headers = NULL;
    *problem = '\0';
    bool good = easy && add_header(headers, "Accept-Encoding: identity");
    if (good && s->token && bg_http_same_origin(url, s->endpoint)) {
        char *line = bg_print("Authorization: Bearer %s", s->token);
        good = line && add_header(headers, line);
        if (line) explicit_bzero(line, strlen(line));
        bg_free(line);
    }
    /* HTTP/1.1: parts of a file asked for side by side get connections of their own. */
    good = good && curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, problem) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
                            is_plain_http(s->endpoint) ? "http,https" : "https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)bg_hub_tune.stall_seconds) ==
               CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)bg_hub_tune.stall_seconds) ==
               CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_USERAGENT, "bitgauge") == CURLE_OK;
    if (good && s->ca_file) good = curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca_file) == CURLE_OK;
    if (good && s->ca_directory)
        good = curl_easy_setopt(easy, CURLOPT_CAPATH, s->ca_directory) == CURLE_OK;
    if (good) return BG_OK;
    curl_easy_cleanup(easy);
    curl_slist_free_all(*headers);
    *out = NULL;
    *headers = NULL;
    return bg_fail_memory(err, 4096, "a request to the Hub");
}

/* ---- answers --------------------------------------------------------------------------------- */

void bg_reply_free(bg_reply *reply)
{
    bg_free(reply->url);
    bg_free(reply->location);
    *reply = (bg_reply){.size = -1};
}

static const char *header(CURL *easy, const char *name)
{
    struct curl_header *found;
    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value
                                                                                  : NULL;
}

static int64_t whole_number(const char *text)
{
    size_t n = strspn(text, "0123456789");
    return n > 0 && n < 19 && !text[n] ? (int64_t)strtoll(text, NULL, 10) : -1;
}

void bg_reply_read(CURL *easy, bg_reply *out)
{
    curl_off_t wait = 0;
    const char *value, *linked = header(easy, "X-Linked-Etag");
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &out->status);
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &wait);
    /* Where Retry-After is missing, "RateLimit: "api";r=0;t=55" says it. */
    value = out->status == 429 && wait == 0 ? header(easy, "RateLimit") : NULL;
    value = value ? strstr(value, ";t=") : NULL;
    out->retry_after = value ? (double)strtol(value + 3, NULL, 10) : (double)wait;
    if (out->retry_after < 0) out->retry_after = 0;
    snprintf(out->error_code, sizeof out->error_code, "%s",
             (value = header(easy, "X-Error-Code")) ? value : "");
    snprintf(out->message, sizeof out->message, "%s",
             (value = header(easy, "X-Error-Message")) ? value : "");
    value = header(easy, "X-Repo-Commit");
    if (value && bg_is_commit(value)) memcpy(out->commit, value, sizeof out->commit);
    value = linked ? linked : header(easy, "ETag");
    if (!value || !bg_etag_parse(value, out->etag)) out->etag[0] = '\0';
    value = header(easy, "X-Linked-Size");
    if (!value && out->status == 200) value = header(easy, "Content-Length");
    out->size = value ? whole_number(value) : -1;
}

bool bg_http_passing(long status)
{
    return status == 408 || status == 429 || status >= 500;
}

double bg_http_back_off(int attempt, double retry_after)
{
    uint32_t random;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = (uint32_t)(bg_seconds() * 1e6);
    double wait = bg_hub_tune.back_off * (double)(1 << (attempt < 6 ? attempt - 1 : 5));
    wait *= 0.5 + 0.5 * (double)random / UINT32_MAX;
    return wait > retry_after ? wait : retry_after;
}

/* ---- one after another ----------------------------------------------------------------------- */

typedef struct {
    bg_text *text; /* NULL: thrown away */
    size_t limit;
} body_sink;

static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    body_sink *sink = context;
    if (!sink->text) return size * n;
    if (size * n > sink->limit - sink->text->size) return CURL_WRITEFUNC_ERROR;
    bg_text_append(sink->text, data, size * n);
    return sink->text->failed ? CURL_WRITEFUNC_ERROR : size * n;
}

/* Lets the one request in `http` run to its end. */
static bg_status perform(bg_http *http, CURL *easy, CURLcode *result, bg_error *err)
{
    int running = 1, left;
    bg_status status = BG_OK;
    if (curl_multi_add_handle(http->multi, easy) != CURLM_OK)
        return bg_fail_memory(err, 4096, "a request to the Hub");
    *result = CURLE_OUT_OF_MEMORY;
    while (status == BG_OK && running) {
        if (curl_multi_perform(http->multi, &running) != CURLM_OK) break;
        status = bg_http_report(http, 0, 0, err);
        if (status == BG_OK && running) curl_multi_poll(http->multi, NULL, 0, 100, NULL);
    }
    for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left));)
        if (message->msg == CURLMSG_DONE) *result = message->data.result;
    curl_multi_remove_handle(http->multi, easy);
    return status;
}

/* Whether the connection may do better next time. A host that is not there will not come soon, and
 * a certificate that is wrong stays wrong. */
static bool passing_result(CURLcode result)
{
    static const CURLcode lasting[] = {CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_RESOLVE_HOST,
                                       CURLE_COULDNT_CONNECT,       CURLE_PEER_FAILED_VERIFICATION,
                                       CURLE_SSL_CACERT_BADFILE,    CURLE_UNSUPPORTED_PROTOCOL,
                                       CURLE_URL_MALFORMAT,         CURLE_WRITE_ERROR,
                                       CURLE_SSL_CERTPROBLEM,       CURLE_SSL_CONNECT_ERROR};
    for (size_t i = 0; i < sizeof lasting / sizeof *lasting; i++)
        if (result == lasting[i]) return false;
    return true;
}

void bg_http_problem(CURLcode result, const char *problem, char *out, size_t size)
{
    if (result == CURLE_OPERATION_TIMEDOUT)
        snprintf(out, size, "nothing came for %d s", bg_hub_tune.stall_seconds);
    else
        snprintf(out, size, "%s", *problem ? problem : curl_easy_strerror(result));
}

static bg_status unreachable(const char *endpoint, CURLcode result, const char *why, bg_error *err)
{
    if (result == CURLE_PEER_FAILED_VERIFICATION)
        return bg_fail(
            err, BG_ERR_FILE,
            "%s cannot be reached (%s): its certificate is not to be trusted; if a proxy "
            "of yours is in the way, name its certificate with SSL_CERT_FILE",
            endpoint, why);
    return bg_fail(
        err, BG_ERR_FILE,
        "%s cannot be reached (%s); check the network, the proxy and HF_ENDPOINT, or set "
        "HF_HUB_OFFLINE=1 to use what is in the cache",
        endpoint, why);
}

/* One attempt. *most: how many such there may be, where there was no answer; 1 if another will do
 * no better. */
static bg_status attempt(bg_http *http, const char *url, bg_text *body, size_t limit,
                         bg_reply *reply, int *most, bg_error *err)
{
    char problem[CURL_ERROR_SIZE];
    CURL *easy;
    struct curl_slist *headers;
    CURLcode result = CURLE_OK;
    body_sink sink = {body, limit};
    BG_TRY(bg_http_request(http, url, problem, &easy, &headers, err));
    if (body) body->size = 0;
    curl_easy_setopt(easy, CURLOPT_NOBODY, body ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &sink);
    bg_status status = perform(http, easy, &result, err);
    bg_reply_read(easy, reply);
    reply->sent_token = http->settings->token && bg_http_same_origin(url, http->settings->endpoint);
    const char *location = header(easy, "Location");
    bool linked = header(easy, "X-Linked-Etag");
    *most = 1;
    if (status != BG_OK) {
        /* interrupted */
    } else if (result == CURLE_OUT_OF_MEMORY || (body && body->failed)) {
        status = bg_fail_memory(err, body ? body->size : 4096, "an answer of the Hub");
    } else if (result == CURLE_WRITE_ERROR) {
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: the answer is longer than %zu bytes; this is no "
                         "Hub",
                         url, limit);
    } else if (result != CURLE_OK) {
        *most = result == CURLE_OPERATION_TIMEDOUT ? BG_HTTP_SILENT_ATTEMPTS
                : passing_result(result)           ? BG_HTTP_ATTEMPTS
                                                   : 1;
        reply->status = 0;
        bg_http_problem(result, problem, reply->message, sizeof reply->message);
        status = unreachable(http->settings->endpoint, result, reply->message, err);
    } else if (reply->status >= 300 && reply->status < 400 && location) {
        status = bg_http_resolve(http, url, location, &reply->location, err);
        /* The ETag of a redirect is that of what it leads to only where it says so. */
        if (!linked) reply->etag[0] = '\0';
    }
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    return status;
}

/* The attempts at one address. */
static bg_status fetch_one(bg_http *http, const char *url, bg_text *body, size_t limit,
                           bg_reply *reply, bg_error *err)
{
    for (int n = 1;; n++) {
        int most = 1;
        bg_free(reply->location);
        reply->location = NULL;
        bg_status status = attempt(http, url, body, limit, reply, &most, err);
        if (status == BG_OK && bg_http_passing(reply->status)) most = BG_HTTP_ATTEMPTS;
        if (n >= most || reply->retry_after > BG_HTTP_LONGEST_WAIT) return status;
        if (reply->status)
            snprintf(reply->message, sizeof reply->message, "HTTP %ld", reply->status);
        const double wait = bg_http_back_off(n, reply->retry_after);
        BG_TRY(bg_http_note(http, err, "%s: %s; attempt %d of %d follows in %.0f s",
                            http->settings->endpoint, reply->message, n + 1, most, ceil(wait)));
        BG_TRY(bg_http_wait(http, wait, err));
    }
}

bg_status bg_http_fetch(bg_http *http, const char *url, bg_text *body, size_t limit,
                        bg_reply *reply, bg_error *err)
{
    enum { MOST_REDIRECTS = 10 };
    *reply = (bg_reply){.size = -1};
    reply->url = bg_strdup(url);
    if (!reply->url) return bg_fail_memory(err, strlen(url), "an address");
    for (int hops = 0; hops <= MOST_REDIRECTS; hops++) {
        BG_TRY(fetch_one(http, reply->url, body, limit, reply, err));
        bool file = !body && reply->etag[0];
        if (!reply->location || file) return BG_OK;
        bg_free(reply->url);
        reply->url = reply->location;
        reply->location = NULL;
    }
    return bg_fail(err, BG_ERR_FILE, "%s redirects without end; check HF_ENDPOINT and the proxy",
                   url);
}
