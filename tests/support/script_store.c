#include "tests/support/script_store.h"

void script_store_environment(void)
{
    static const char *const unset[] = {"http_proxy",    "https_proxy",       "all_proxy",
                                        "HTTPS_PROXY",   "ALL_PROXY",         "AWS_PROFILE",
                                        "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN", "AWS_REGION"};

    for (unsigned i = 0; i < G_N_ELEMENTS(unset); i++)
        g_unsetenv(unset[i]);
    g_setenv("AWS_ACCESS_KEY_ID", "script-id", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", SCRIPT_SECRET, TRUE);
}

struct store *script_store_open(const struct script_server *server,
                                const struct store_options *options)
{
    struct store_options all = options ? *options : (struct store_options){0};
    g_autofree char *endpoint = NULL;
    g_autoptr(GError) error = NULL;
    struct store *store;

    script_store_environment();
    if (!all.endpoint)
        all.endpoint = endpoint =
            g_strdup_printf("http://127.0.0.1:%u", script_server_port(server));
    store = store_open("s3://tests", &all, &error);
    if (!store)
        g_error("%s", error->message);
    return store;
}

GError *script_store_failure(struct store *store, struct store_call *call)
{
    GError *error = NULL;

    store_run(store, call, &error);
    return error;
}
