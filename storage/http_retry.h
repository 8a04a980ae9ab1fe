/* Which failures of a request are worth another try, and when. Pure decisions. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Whether an answer with this status may be different the next time. */
bool http_retry_status(unsigned status);

/* Whether S3's error CODE (may be NULL) asks for another try, whatever the status. */
bool http_retry_s3_code(const char *code);

/* Whether a transport failure (a CURLcode) is worth another try. */
bool http_retry_curl(int curl_code);

/* Whether it means that the server was not reached at all, so that nothing can have happened. */
bool http_retry_is_unreached(int curl_code);

/* How long to wait before try TRIES + 1: exponential, with jitter, at least what the server's
 * Retry-After (may be NULL) asks for. RANDOM is in [0, 1). */
unsigned http_retry_delay_ms(unsigned tries, const char *retry_after, double random);
