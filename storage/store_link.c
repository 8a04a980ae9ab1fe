#include "storage/store_link.h"

#include "config/error.h"
#include "storage/s3_sign.h"
#include "storage/uri.h"

#include <string.h>

static char *file_link(const char *root, const char *key, GError **error)
{
    g_autofree char *path = g_uri_unescape_string(root + strlen("file://"), NULL);

    if (!path || *path != '/')
        return error_set(error, EINVAL, "%s: not a directory's URL", root), NULL;
    return g_build_filename(path, key, NULL);
}

static char *address(const struct store_options *options, const struct credentials *credentials)
{
    return options->endpoint ? g_strdup(options->endpoint)
                             : g_strdup_printf("https://s3.%s.amazonaws.com", credentials->region);
}

static char *s3_link(const char *root, const struct store_options *options, const char *key,
                     unsigned valid_s, GError **error)
{
    g_autofree char *bucket = NULL, *prefix = NULL, *where = NULL, *plain = NULL, *path = NULL;
    struct credentials credentials = {0};
    struct uri_endpoint endpoint = {0};
    char *link = NULL;

    if (!uri_parse_bucket(root, &bucket, &prefix, error) ||
        !credentials_load(options->profile, options->region, &credentials, error))
        return NULL;
    where = address(options, &credentials);
    if (uri_parse_endpoint(where, &endpoint, error)) {
        bool in_host = options->virtual_host && !strchr(bucket, '.');
        g_autofree char *host =
            g_strconcat(in_host ? bucket : "", in_host ? "." : "", endpoint.host, NULL);
        struct s3_signing signing = {.credentials = &credentials,
                                     .method = "GET",
                                     .payload = S3_UNSIGNED_PAYLOAD,
                                     .now_s = g_get_real_time() / G_USEC_PER_SEC};
        g_autofree char *query = NULL;

        plain = g_strconcat(in_host ? "" : "/", in_host ? "" : bucket, "/", prefix, key, NULL);
        signing.path = path = uri_encode(plain, true);
        query = s3_sign_query(&signing, host, valid_s);
        link = g_strdup_printf("%s://%s%s?%s", endpoint.is_https ? "https" : "http", host, path,
                               query);
    }
    uri_endpoint_clear(&endpoint);
    credentials_clear(&credentials);
    return link;
}

char *store_link(const char *root, const struct store_options *options, const char *key,
                 unsigned valid_s, GError **error)
{
    if (g_str_has_prefix(root, "file://"))
        return file_link(root, key, error);
    if (g_str_has_prefix(root, "s3://"))
        return s3_link(root, options, key, valid_s, error);
    error_set(error, ENOTSUP, "%s: nothing but file:// and s3:// has links", root);
    return NULL;
}
