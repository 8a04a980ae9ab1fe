#include "storage/uri.h"

#include "config/error.h"

#include <string.h>

#define BUCKET_MIN 3
#define BUCKET_MAX 255 /* 63 today; older and other stores have longer ones */

static bool is_unreserved(char c)
{
    return g_ascii_isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

char *uri_encode(const char *text, bool keep_slashes)
{
    GString *encoded = g_string_new(NULL);

    for (; *text; text++) {
        if (is_unreserved(*text) || (*text == '/' && keep_slashes))
            g_string_append_c(encoded, *text);
        else
            g_string_append_printf(encoded, "%%%02X", (unsigned char)*text);
    }
    return g_string_free(encoded, FALSE);
}

char *uri_decode(const char *text)
{
    g_autoptr(GString) decoded = g_string_new(NULL);

    for (; *text; text++) {
        int high, low;

        if (*text != '%') {
            g_string_append_c(decoded, *text == '+' ? ' ' : *text);
            continue;
        }
        high = g_ascii_xdigit_value(text[1]);
        low = high < 0 ? -1 : g_ascii_xdigit_value(text[2]);
        if (low < 0 || (high == 0 && low == 0))
            return NULL;
        g_string_append_c(decoded, (char)(high * 16 + low));
        text += 2;
    }
    return g_strdup(decoded->str);
}

void uri_query_add(GPtrArray *query, const char *name, const char *value)
{
    g_autofree char *encoded_name = uri_encode(name, false);
    g_autofree char *encoded_value = uri_encode(value, false);

    g_ptr_array_add(query, g_strconcat(encoded_name, "=", encoded_value, NULL));
}

int uri_compare_names(const void *a, const void *b)
{
    const char *left = *(char *const *)a, *right = *(char *const *)b;
    size_t left_size = strcspn(left, "=:"), right_size = strcspn(right, "=:");
    int order = memcmp(left, right, MIN(left_size, right_size));

    if (order)
        return order;
    if (left_size != right_size)
        return left_size < right_size ? -1 : 1;
    return strcmp(left + left_size, right + right_size);
}

char *uri_query_join(GPtrArray *query)
{
    GString *joined = g_string_new(NULL);

    g_ptr_array_sort(query, uri_compare_names);
    for (guint i = 0; i < query->len; i++) {
        if (i)
            g_string_append_c(joined, '&');
        g_string_append(joined, query->pdata[i]);
    }
    return g_string_free(joined, FALSE);
}

static bool is_bucket(const char *bucket)
{
    size_t length = strlen(bucket);

    if (length < BUCKET_MIN || length > BUCKET_MAX || !g_ascii_isalnum(bucket[0]))
        return false;
    for (; *bucket; bucket++)
        if (!g_ascii_isalnum(*bucket) && !strchr("-._", *bucket))
            return false;
    return true;
}

bool uri_parse_bucket(const char *url, char **bucket, char **prefix, GError **error)
{
    g_autofree char *name = NULL;
    const char *rest, *slash;

    if (!g_str_has_prefix(url, "s3://"))
        return error_set(error, EINVAL, "%s: not of the form s3://BUCKET/PREFIX", url);
    rest = url + strlen("s3://");
    slash = strchr(rest, '/');
    name = slash ? g_strndup(rest, (size_t)(slash - rest)) : g_strdup(rest);
    if (!is_bucket(name))
        return error_set(error, EINVAL, "%s: \"%s\" is no name of a bucket", url, name);
    rest = slash ? slash + 1 : "";
    if (!g_utf8_validate(rest, -1, NULL))
        return error_set(error, EINVAL, "%s: the prefix is not UTF-8", url);
    *prefix = *rest && !g_str_has_suffix(rest, "/") ? g_strconcat(rest, "/", NULL) : g_strdup(rest);
    *bucket = g_steal_pointer(&name);
    return true;
}

/* What a host may consist of: a name, an IPv4 address, or an IPv6 one in brackets. */
static bool is_host(const char *host)
{
    return *host && *host != ':' &&
           host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "-._:[]")] == '\0';
}

bool uri_parse_endpoint(const char *url, struct uri_endpoint *endpoint, GError **error)
{
    bool is_https = g_str_has_prefix(url, "https://");
    g_autofree char *host = NULL;
    const char *own_port = is_https ? ":443" : ":80";

    if (!is_https && !g_str_has_prefix(url, "http://"))
        return error_set(error, EINVAL, "endpoint %s: must begin with http:// or https://", url);
    host = g_strdup(url + (is_https ? strlen("https://") : strlen("http://")));
    if (g_str_has_suffix(host, "/"))
        host[strlen(host) - 1] = '\0';
    if (!is_host(host))
        return error_set(error, EINVAL, "endpoint %s: not of the form http[s]://HOST[:PORT]", url);
    if (g_str_has_suffix(host, own_port))
        host[strlen(host) - strlen(own_port)] = '\0';
    endpoint->is_https = is_https;
    endpoint->host = g_steal_pointer(&host);
    return true;
}

void uri_endpoint_clear(struct uri_endpoint *endpoint)
{
    g_clear_pointer(&endpoint->host, g_free);
}
