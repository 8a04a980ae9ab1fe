/* Percent-encoding, query strings, and the two kinds of address of an S3 store.
 *
 * source: RFC 3986; AWS Signature Version 4, "UriEncode" and "canonical query string".
 * owns:   results are the caller's.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* Every byte but A-Z a-z 0-9 - . _ ~ becomes %XX; '/' stays with KEEP_SLASHES. */
char *uri_encode(const char *text, bool keep_slashes);

/* The reverse, with '+' for a space, as stores encode listings. NULL when TEXT is malformed or
 * would hold a zero byte. */
char *uri_decode(const char *text);

/* Appends "name=value", both encoded. A query is a GPtrArray of such strings. */
void uri_query_add(GPtrArray *query, const char *name, const char *value);

/* Sorts QUERY in the order signing asks for, and joins it. */
char *uri_query_join(GPtrArray *query);

/* Orders "name=value" or "name:value" strings by their names. */
int uri_compare_names(const void *a, const void *b); /* of char *const * */

/* "s3://BUCKET[/PREFIX]". *PREFIX is "" or ends in '/'. */
bool uri_parse_bucket(const char *url, char **bucket, char **prefix, GError **error);

struct uri_endpoint {
    bool is_https;
    char *host; /* with ":port" unless it is the scheme's own */
};

/* "http[s]://HOST[:PORT][/]". */
bool uri_parse_endpoint(const char *url, struct uri_endpoint *endpoint, GError **error);
void uri_endpoint_clear(struct uri_endpoint *endpoint);
