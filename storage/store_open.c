/* From a URL to a store: the one table of schemes. */
#include "storage/store_driver.h"

#include "config/error.h"

static const struct {
    const char *scheme;
    struct store *(*open)(const char *url, const struct store_options *options, GError **error);
} openers[] = {
    {"file://", store_file_open},
    {"s3://", store_s3_open},
};

struct store *store_open(const char *url, const struct store_options *options, GError **error)
{
    static const struct store_options defaults;

    for (unsigned i = 0; i < G_N_ELEMENTS(openers); i++)
        if (g_str_has_prefix(url, openers[i].scheme))
            return openers[i].open(url, options ? options : &defaults, error);
    error_set(error, EINVAL, "%s: not a store; use file:///DIR or s3://BUCKET/PREFIX", url);
    return NULL;
}
