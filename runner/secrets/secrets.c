#include "runner/secrets/secrets.h"
#include "config/error.h"
#include "runner/secrets/secret_box.h"
#include <string.h>

enum { VALUE_MAX = 64 * 1024, OBJECT_MAX = VALUE_MAX + 64 };

static char *prefix_of(const char *repo)
{
    return g_strdup_printf("secrets/%s/", repo);
}

static char *key_of(const char *repo, const char *name)
{
    return g_strdup_printf("secrets/%s/%s", repo, name);
}

static void secret_clear(gpointer data)
{
    struct secret *secret = data;

    g_free(secret->name);
    secret_free(secret->value);
    g_free(secret);
}

static bool name_is_valid(const char *name)
{
    size_t length = strlen(name);

    return length > 0 && length <= 100 && !g_ascii_isdigit(*name) &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") ==
               length;
}

bool secret_name_check(const char *name, GError **error)
{
    static const char *const taken[] = {"PATH", "HOME",      "RUN_NAME", "JOB_ID",
                                        "ENV",  "SHELLOPTS", "BASH_ENV", "PYTHONUNBUFFERED",
                                        NULL};

    if (!name_is_valid(name))
        return error_set(error, EINVAL,
                         "\"%s\" cannot be a secret's name: use letters, digits and '_', as for an "
                         "environment variable",
                         name);
    if (g_strv_contains(taken, name) || g_str_has_prefix(name, "LD_") ||
        g_str_has_prefix(name, "DSTACK_"))
        return error_set(error, EINVAL,
                         "a secret cannot be called %s: jobs get it in their environment", name);
    return true;
}

bool secret_value_check(const char *value, size_t size, GError **error)
{
    if (size == 0)
        return error_set(error, EINVAL, "a secret cannot be empty");
    if (size > VALUE_MAX)
        return error_set(error, EFBIG, "a secret can have 64 KiB at most");
    return strlen(value) == size ||
           error_set(error, EINVAL, "a secret is a text: it cannot have a zero byte");
}

static bool note_name(const struct store_object *object, void *user, GError **error)
{
    const char *name = strrchr(object->key, '/') + 1;

    if (name_is_valid(name)) /* others were not put there by us */
        g_ptr_array_add(user, g_strdup(name));
    return true;
}

GPtrArray *secrets_list(struct store *root, const char *repo, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *prefix = prefix_of(repo);

    if (!store_list(root, prefix, false, note_name, names, error))
        return NULL;
    return g_steal_pointer(&names);
}

bool secrets_has(struct store *root, const char *repo, const char *name, bool *has, GError **error)
{
    g_autofree char *key = key_of(repo, name);

    return store_has(root, key, has, error);
}

static char *read_value(struct store *root, const uint8_t key[SECRET_KEY_BYTES], const char *repo,
                        const char *name, GError **error)
{
    g_autofree char *object = key_of(repo, name), *data = NULL;
    size_t size;

    if (!store_read(root, object, OBJECT_MAX, &data, &size, NULL, error))
        return NULL;
    return secret_unseal(key, repo, name, data, size, error);
}

/* Whether a secret that is there, if one is, but NAME, was sealed with KEY. */
static bool check_key(struct store *root, const uint8_t key[SECRET_KEY_BYTES], const char *repo,
                      const char *name, GError **error)
{
    g_autoptr(GPtrArray) names = secrets_list(root, repo, error);

    for (guint i = 0; names && i < names->len; i++) {
        char *value;

        if (strcmp(names->pdata[i], name) == 0)
            continue;
        value = read_value(root, key, repo, names->pdata[i], error);
        secret_free(value);
        return value != NULL;
    }
    return names != NULL;
}

bool secrets_put(struct store *root, const char *repo, const char *name, const char *value,
                 GError **error)
{
    g_autofree char *object = key_of(repo, name);
    g_autofree uint8_t *box = NULL;
    g_autoptr(GPtrArray) names = NULL;
    uint8_t key[SECRET_KEY_BYTES];
    size_t size = 0;

    if (!secret_name_check(name, error) || !secret_value_check(value, strlen(value), error))
        return false;
    names = secrets_list(root, repo, error);
    /* a new key could not open what is there */
    if (names && secret_key_load(key, names->len == 0, error) &&
        check_key(root, key, repo, name, error))
        box = secret_seal(key, repo, name, value, &size, error);
    secret_key_forget(key);
    return box && store_write(root, object, box, size, NULL, NULL, error);
}

bool secrets_delete(struct store *root, const char *repo, const char *name, GError **error)
{
    g_autofree char *key = key_of(repo, name);

    return store_delete(root, key, error);
}

static bool copy(struct store *from, struct store *to, const char *key, GError **error)
{
    g_autofree char *data = NULL;
    g_autoptr(GError) raced = NULL;
    size_t size;

    if (!store_read(from, key, OBJECT_MAX, &data, &size, NULL, error))
        return false;
    if (store_write(to, key, data, size, store_caps(to)->has_put_if_absent ? "" : NULL, NULL,
                    &raced) ||
        error_is(raced, EEXIST)) /* somebody else did */
        return true;
    g_propagate_error(error, g_steal_pointer(&raced));
    return false;
}

bool secrets_copy_missing(struct store *from, struct store *to, const char *repo, GError **error)
{
    g_autoptr(GPtrArray) names = secrets_list(from, repo, error);
    g_autoptr(GPtrArray) there = names && names->len ? secrets_list(to, repo, error) : NULL;

    if (!names || (names->len && !there))
        return false;
    for (guint i = 0; i < names->len; i++) {
        g_autofree char *key = key_of(repo, names->pdata[i]);

        if (!g_ptr_array_find_with_equal_func(there, names->pdata[i], g_str_equal, NULL) &&
            !copy(from, to, key, error))
            return false;
    }
    return true;
}

GPtrArray *secrets_load(struct store *root, const char *repo, GError **error)
{
    g_autoptr(GPtrArray) secrets = g_ptr_array_new_with_free_func(secret_clear);
    g_autoptr(GPtrArray) names = secrets_list(root, repo, error);
    uint8_t key[SECRET_KEY_BYTES];
    bool fine = names && (names->len == 0 || secret_key_load(key, false, error));

    for (guint i = 0; fine && i < names->len; i++) {
        struct secret *secret = g_new0(struct secret, 1);

        g_ptr_array_add(secrets, secret);
        secret->name = g_strdup(names->pdata[i]);
        secret->value = read_value(root, key, repo, secret->name, error);
        fine = secret->value != NULL;
    }
    secret_key_forget(key);
    return fine ? g_steal_pointer(&secrets) : NULL;
}

const char *secrets_value(const GPtrArray *secrets, const char *name)
{
    for (guint i = 0; secrets && i < secrets->len; i++) {
        const struct secret *secret = secrets->pdata[i];

        if (strcmp(secret->name, name) == 0)
            return secret->value;
    }
    return NULL;
}
