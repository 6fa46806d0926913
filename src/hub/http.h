/* HTTP to the Hub over libcurl: connections, certificates, waits, and where the token may go.
 *
 * The token is sent to the endpoint's own scheme, host and port alone. Redirects are followed by
 * hand, one request each, so that every hop is judged anew; where the endpoint is https, nothing
 * but https is spoken. */
#ifndef BG_HUB_HTTP_H
#define BG_HUB_HTTP_H

#include "core/text.h"
#include "hub/settings.h"

#include <curl/curl.h>
#include <stdint.h>

typedef struct {
    const bg_hub_settings *settings;
    bg_progress progress;
    CURLM *multi;
    char stage[256]; /* what the progress callback is told while a request is waited for */
} bg_http;

/* `settings` must outlive it. Released with bg_http_close, also when this fails. */
bg_status bg_http_open(const bg_hub_settings *settings, bg_progress progress, bg_http *out,
                       bg_error *err);
void bg_http_close(bg_http *http);

/* Tells the progress callback; BG_ERR_INTERRUPTED when it wants an end. */
bg_status bg_http_report(const bg_http *http, uint64_t done, uint64_t total, bg_error *err);

/* Tells the progress callback a remark for the user (BG_STAGE_NOTE); the end as above. */
bg_status bg_http_note(const bg_http *http, bg_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Waits, reporting meanwhile. */
bg_status bg_http_wait(const bg_http *http, double seconds, bg_error *err);

/* One request, ready to be performed; *headers belongs to the caller (curl_slist_free_all after
 * the request) and has the token where `url` is the endpoint's. `problem` has CURL_ERROR_SIZE bytes
 * and lives as long as the request. */
bg_status bg_http_request(const bg_http *http, const char *url, char *problem, CURL **out,
                          struct curl_slist **headers, bg_error *err);

bool bg_http_same_origin(const char *a, const char *b);

/* `location` as seen from `base`, checked: what may be asked there. NULL with an error if not. */
bg_status bg_http_resolve(const bg_http *http, const char *base, const char *location, char **out,
                          bg_error *err);

/* What the head of an answer said. */
typedef struct {
    long status;         /* 0: there was no answer */
    char error_code[64]; /* X-Error-Code */
    char message[256];   /* X-Error-Message, or what was wrong with the connection */
    double retry_after;  /* seconds; 0: not said */
    char commit[41];     /* X-Repo-Commit, of the last answer that had one, or "" */
    char etag[65];       /* X-Linked-Etag, else ETag, or "" */
    int64_t size;        /* X-Linked-Size, else Content-Length where it is the file's; -1 */
    char *url;           /* what was asked in the end, after redirects; owned */
    char *location;      /* where the last redirect that was not followed leads; owned, or NULL */
    bool sent_token;
} bg_reply;
void bg_reply_free(bg_reply *reply);

/* What was wrong with a connection, in words; `problem` as of bg_http_request. */
void bg_http_problem(CURLcode result, const char *problem, char *out, size_t size);

/* Reads the head of the last answer on `easy` into *out (all but the owned strings). */
void bg_reply_read(CURL *easy, bg_reply *out);

/* Whether another attempt may do better: 408, 429, 5xx. */
bool bg_http_passing(long status);

/* Seconds to wait before attempt number `attempt` (1 is the first repetition): doubling, with
 * jitter, and no less than the server asked for. */
double bg_http_back_off(int attempt, double retry_after);
enum {
    BG_HTTP_ATTEMPTS = 5,
    BG_HTTP_SILENT_ATTEMPTS = 3, /* where each ended because nothing came */
    BG_HTTP_LONGEST_WAIT = 120,  /* what a server may ask for; more is an error */
};

/* GET (into `body`, at most `limit` bytes) or, where `body` is NULL, HEAD. Repeats what may do
 * better, follows redirects that stay at the endpoint, and any other unless it is that of a file
 * (X-Linked-Etag): then reply->location leads to its content. BG_OK for every answer, whatever its
 * status; BG_ERR_FILE with reply->status 0 where there was none. */
bg_status bg_http_fetch(bg_http *http, const char *url, bg_text *body, size_t limit,
                        bg_reply *reply, bg_error *err);

#endif
