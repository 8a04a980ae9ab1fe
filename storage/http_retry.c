#include "storage/http_retry.h"

#include <curl/curl.h>
#include <string.h>

#define FIRST_DELAY_MS        100
#define LONGEST_DELAY_MS      5000
#define LONGEST_RETRY_AFTER_S 60

bool http_retry_status(unsigned status)
{
    static const unsigned retried[] = {408, 429, 500, 502, 503, 504};

    for (unsigned i = 0; i < G_N_ELEMENTS(retried); i++)
        if (status == retried[i])
            return true;
    return false;
}

bool http_retry_s3_code(const char *code)
{
    static const char *const retried[] = {
        "SlowDown",
        "RequestTimeout",
        "InternalError",
        "ServiceUnavailable",
        "ConditionalRequestConflict", /* another writer is at it, and may yet fail */
        "BadDigest",
        "XAmzContentSHA256Mismatch", /* the bytes changed on their way */
        NULL};

    return code && g_strv_contains(retried, code);
}

bool http_retry_is_unreached(int curl_code)
{
    return curl_code == CURLE_COULDNT_CONNECT || curl_code == CURLE_COULDNT_RESOLVE_HOST ||
           curl_code == CURLE_COULDNT_RESOLVE_PROXY;
}

bool http_retry_curl(int curl_code)
{
    switch (curl_code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_ABORTED_BY_CALLBACK:
    case CURLE_WRITE_ERROR: /* ours: the answer is larger than it may be */
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_BAD_FUNCTION_ARGUMENT:
        return false;
    default:
        return true;
    }
}

unsigned http_retry_delay_ms(unsigned tries, const char *retry_after, double random)
{
    unsigned doublings = tries > 1 ? MIN(tries - 1, 10) : 0;
    unsigned delay_ms = MIN(FIRST_DELAY_MS << doublings, LONGEST_DELAY_MS);
    guint64 seconds;

    delay_ms = (unsigned)(delay_ms * (0.5 + random / 2));
    /* The other form, a date, is treated as absent. */
    if (retry_after && g_ascii_string_to_unsigned(retry_after, 10, 0, G_MAXUINT, &seconds, NULL))
        delay_ms = MAX(delay_ms, (unsigned)MIN(seconds, LONGEST_RETRY_AFTER_S) * 1000);
    return delay_ms;
}
