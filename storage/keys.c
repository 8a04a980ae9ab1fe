#include "storage/keys.h"

#include <string.h>

char *keys_artifacts(const char *repo, const char *run)
{
    return g_strdup_printf("artifacts/%s/%s/", repo, run);
}

char *keys_tag(const char *repo, const char *tag)
{
    return g_strdup_printf("tags/%s/%s.json", repo, tag);
}

char *keys_tags(const char *repo)
{
    return g_strdup_printf("tags/%s/", repo);
}

bool keys_is_of_mount(const char *key)
{
    return g_str_has_prefix(key, KEYS_MOUNT_DIR) || g_str_has_prefix(key, KEYS_INDEX_DIR) ||
           strstr(key, "/" KEYS_MOUNT_DIR) || strstr(key, "/" KEYS_INDEX_DIR);
}

bool keys_name_is_valid(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length > 100 || *name == '.')
        return false;
    for (; *name; name++)
        if (!g_ascii_isalnum(*name) && !strchr("._-", *name))
            return false;
    return true;
}
