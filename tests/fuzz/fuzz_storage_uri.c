/* Addresses, percent-encoding, tokens and dates of the same text. */
#include "storage/http.h"
#include "storage/s3_xml.h"
#include "storage/uri.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const char *text)
{
    g_autofree char *encoded = uri_encode(text, false);
    g_autofree char *again = uri_decode(encoded);
    g_autofree char *decoded = uri_decode(text);

    g_assert_cmpstr(again, ==, text);
    g_assert(!decoded || strlen(decoded) <= strlen(text));
}

static void parse(const char *text)
{
    struct uri_endpoint endpoint = {0};
    g_autofree char *bucket = NULL, *prefix = NULL, *key = NULL, *upload_id = NULL;
    g_autoptr(GError) error = NULL, why = NULL;

    if (uri_parse_bucket(text, &bucket, &prefix, &error))
        g_assert(!error && *bucket && !strchr(bucket, '/') &&
                 (!*prefix || g_str_has_suffix(prefix, "/")));
    else
        g_assert(error && !bucket);
    if (uri_parse_endpoint(text, &endpoint, &why))
        g_assert(!why && *endpoint.host && !strpbrk(endpoint.host, "/@?# \r\n"));
    else
        g_assert(why && !endpoint.host);
    uri_endpoint_clear(&endpoint);
    s3_xml_split_token(text, &key, &upload_id);
    g_assert(!key == !upload_id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);

    encode(text);
    parse(text);
    g_assert(http_date(text) >= -1);
    s3_xml_time(text);
    return 0;
}
