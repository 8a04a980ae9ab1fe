#include "runner/provider/provider.h"
#include "config/error.h"
#include <string.h>

static const struct provider *const PROVIDERS[] = {&provider_bash, &provider_docker, &provider_code,
                                                   &provider_lab, &provider_notebook};

const struct provider *provider_find(const char *name, GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(PROVIDERS); i++) {
        if (strcmp(PROVIDERS[i]->name, name) == 0)
            return PROVIDERS[i];
        g_string_append_printf(known, "%s%s", i ? ", " : "", PROVIDERS[i]->name);
    }
    error_set(error, ENOENT, "there is no provider \"%s\"; there are: %s", name, known->str);
    return NULL;
}

void provider_clean_nothing(const struct run *run)
{
}
