#include "storage/uri.h"

#include "config/error.h"

#include <criterion/criterion.h>

Test(uri, encodes_all_but_unreserved)
{
    g_autofree char *kept = uri_encode("a b/+ü~._-%", true);
    g_autofree char *all = uri_encode("a/b", false);

    cr_assert_str_eq(kept, "a%20b/%2B%C3%BC~._-%25");
    cr_assert_str_eq(all, "a%2Fb");
}

Test(uri, decodes_what_it_encodes)
{
    for (int byte = 1; byte < 256; byte++) {
        char text[] = {'x', (char)byte, 0};
        g_autofree char *encoded = uri_encode(text, false);
        g_autofree char *decoded = uri_decode(encoded);

        cr_assert_str_eq(decoded, text);
    }
}

Test(uri, decodes_plus_as_space_and_lower_case)
{
    g_autofree char *decoded = uri_decode("a+b%2b%c3%bc");

    cr_assert_str_eq(decoded, "a b+ü");
}

Test(uri, refuses_malformed_encodings)
{
    static const char *const bad[] = {"%", "a%2", "%zz", "%0g", "%00", "x%00y"};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        cr_assert_null(uri_decode(bad[i]), "%s", bad[i]);
}

Test(uri, query_is_sorted_by_name)
{
    g_autoptr(GPtrArray) query = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *joined = NULL;

    uri_query_add(query, "prefix-x", "1");
    uri_query_add(query, "prefix", "a&b=c");
    uri_query_add(query, "delete", "");
    joined = uri_query_join(query);
    cr_assert_str_eq(joined, "delete=&prefix=a%26b%3Dc&prefix-x=1");
}

Test(uri, bucket_and_prefix)
{
    static const struct {
        const char *url, *bucket, *prefix;
    } good[] = {
        {"s3://bucket", "bucket", ""},
        {"s3://bucket/", "bucket", ""},
        {"s3://my.bucket-1/a/b", "my.bucket-1", "a/b/"},
        {"s3://bucket/a/", "bucket", "a/"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *bucket = NULL, *prefix = NULL;

        cr_assert(uri_parse_bucket(good[i].url, &bucket, &prefix, NULL), "%s", good[i].url);
        cr_assert_str_eq(bucket, good[i].bucket);
        cr_assert_str_eq(prefix, good[i].prefix);
    }
}

Test(uri, refuses_bad_buckets)
{
    static const char *const bad[] = {"s3://",       "s3:///key",     "s3://ab",
                                      "s3://-abc",   "s3://a b c",    "s3://abc?d/e",
                                      "file:///abc", "s3://abc@host", "s3://abc/\xff"};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        char *bucket = NULL, *prefix = NULL;

        cr_assert_not(uri_parse_bucket(bad[i], &bucket, &prefix, &error), "%s", bad[i]);
        cr_assert(error_is(error, EINVAL));
        cr_assert_null(bucket);
    }
}

Test(uri, endpoints)
{
    static const struct {
        const char *url, *host;
        bool is_https;
    } good[] = {
        {"http://127.0.0.1:9000", "127.0.0.1:9000", false},
        {"http://host:80/", "host", false},
        {"https://host:443", "host", true},
        {"https://host:80", "host:80", true},
        {"http://[::1]:9000", "[::1]:9000", false},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        struct uri_endpoint endpoint = {0};

        cr_assert(uri_parse_endpoint(good[i].url, &endpoint, NULL), "%s", good[i].url);
        cr_assert_str_eq(endpoint.host, good[i].host);
        cr_assert_eq(endpoint.is_https, good[i].is_https);
        uri_endpoint_clear(&endpoint);
    }
}

Test(uri, refuses_bad_endpoints)
{
    static const char *const bad[] = {"",
                                      "host",
                                      "ftp://host",
                                      "http://",
                                      "http://:80",
                                      "https://:9000/",
                                      "http://user@host",
                                      "http://host/path",
                                      "http://ho st",
                                      "http://host\r\nx:y"};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct uri_endpoint endpoint = {0};
        g_autoptr(GError) error = NULL;

        cr_assert_not(uri_parse_endpoint(bad[i], &endpoint, &error), "%s", bad[i]);
        cr_assert(error_is(error, EINVAL));
    }
}
