/* Secrets: what the store keeps of them, and what a log shows. */
#include "config/error.h"
#include "runner/secrets/mask.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

struct world {
    char *home;
    struct store *root;
};

static struct world world_make(void)
{
    struct world world = {g_dir_make_tmp("dstack-secret-XXXXXX", NULL), NULL};
    g_autofree char *url = g_strdup_printf("file://%s", world.home);

    g_setenv("DSTACK_HOME", world.home, TRUE);
    g_unsetenv(SECRETS_KEY_VARIABLE);
    world.root = store_open(url, NULL, NULL);
    cr_assert_not_null(world.root);
    return world;
}

static void world_remove(struct world *world)
{
    char *argv[] = {"rm", "-rf", world->home, NULL};

    store_unref(world->root);
    cr_assert(
        g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
    g_free(world->home);
}

Test(secrets, come_back_and_are_not_to_be_read_in_the_store)
{
    struct world world = world_make();
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) secrets = NULL;
    g_autofree char *data = NULL, *key = g_build_filename(world.home, "secrets.key", NULL);
    struct stat st;
    size_t size;

    cr_assert(secrets_put(world.root, "demo", "TOKEN", "hunter2\nline two", &error), "%s",
              error ? error->message : "");
    cr_assert(secrets_put(world.root, "demo", "OTHER", "x", &error));
    cr_assert(secrets_put(world.root, "demo", "OTHER", "y", &error));
    cr_assert_eq(stat(key, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    secrets = secrets_load(world.root, "demo", &error);
    cr_assert_not_null(secrets, "%s", error ? error->message : "");
    cr_assert_eq(secrets->len, 2);
    cr_assert_str_eq(secrets_value(secrets, "TOKEN"), "hunter2\nline two");
    cr_assert_str_eq(secrets_value(secrets, "OTHER"), "y");
    cr_assert_null(secrets_value(secrets, "NONE"));
    cr_assert(store_read(world.root, "secrets/demo/TOKEN", 1000, &data, &size, NULL, &error));
    cr_assert_null(memmem(data, size, "hunter2", 7));
    world_remove(&world);
}

/* Copies the sealed TOKEN of demo to KEY, changed at byte AT when that is not -1. */
static void forge(struct store *root, const char *key, int at)
{
    g_autofree char *data = NULL;
    size_t size;

    cr_assert(store_read(root, "secrets/demo/TOKEN", 1000, &data, &size, NULL, NULL));
    if (at >= 0)
        data[at % (int)size] ^= 1;
    cr_assert(store_write(root, key, data, size, NULL, NULL, NULL));
}

static void cannot_load(struct store *root, const char *repo, int code)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) secrets = secrets_load(root, repo, &error);

    cr_assert_null(secrets);
    cr_assert(error_is(error, code), "%s", error->message);
    cr_assert_null(strstr(error->message, "hunter2"));
}

Test(secrets, one_cannot_stand_for_another)
{
    struct world world = world_make();

    cr_assert(secrets_put(world.root, "demo", "TOKEN", "hunter2", NULL));
    forge(world.root, "secrets/two/TOKEN", -1);
    cannot_load(world.root, "two", EBADMSG);
    forge(world.root, "secrets/three/NAME", -1);
    cannot_load(world.root, "three", EBADMSG);
    for (int at = 0; at < 36; at++) {
        forge(world.root, "secrets/demo/TOKEN", at);
        cannot_load(world.root, "demo", EBADMSG);
        forge(world.root, "secrets/demo/TOKEN", at);
    }
    cr_assert(store_write(world.root, "secrets/demo/TOKEN", "short", 5, NULL, NULL, NULL));
    cannot_load(world.root, "demo", EBADMSG);
    world_remove(&world);
}

Test(secrets, the_key_decides)
{
    struct world world = world_make();
    g_autofree char *key = g_build_filename(world.home, "secrets.key", NULL), *text = NULL;
    g_autoptr(GError) error = NULL, other = NULL;

    cr_assert(secrets_put(world.root, "demo", "TOKEN", "hunter2", NULL));
    cr_assert(g_file_get_contents(key, &text, NULL, NULL));
    g_chmod(key, 0644);
    cannot_load(world.root, "demo", EACCES);
    g_unlink(key);
    cannot_load(world.root, "demo", ENOENT);
    cr_assert_not(secrets_put(world.root, "demo", "MORE", "x", &error), "a second key was made");
    cr_assert(error_is(error, ENOENT), "%s", error->message);
    g_setenv(SECRETS_KEY_VARIABLE, "00", TRUE);
    cannot_load(world.root, "demo", EINVAL);
    g_setenv(SECRETS_KEY_VARIABLE,
             "0000000000000000000000000000000000000000000000000000000000000000", TRUE);
    cannot_load(world.root, "demo", EBADMSG);
    cr_assert_not(secrets_put(world.root, "demo", "MORE", "x", &other));
    cr_assert(error_is(other, EBADMSG), "%s", other->message);
    g_setenv(SECRETS_KEY_VARIABLE, g_strchomp(text), TRUE);
    cr_assert(secrets_put(world.root, "demo", "MORE", "x", NULL));
    world_remove(&world);
}

Test(secrets, names_and_values_that_there_cannot_be)
{
    static const char *const names[] = {"", "1A", "A-B", "A B", "PATH", "LD_PRELOAD", "DSTACK_JOB"};

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        cr_assert_not(secret_name_check(names[i], NULL), "%s", names[i]);
    cr_assert(secret_name_check("_A1", NULL));
    cr_assert_not(secret_value_check("", 0, NULL));
    cr_assert_not(secret_value_check("a\0b", 3, NULL));
    cr_assert_not(secret_value_check("", 65537, NULL));
}

/* TEXT in pieces of every size shows EXPECTED. */
static void shows(const char *const *values, const char *text, const char *expected)
{
    g_autoptr(GPtrArray) secrets = g_ptr_array_new_with_free_func(g_free);

    for (; *values; values++) {
        struct secret *secret = g_new0(struct secret, 1);

        secret->value = (char *)*values;
        g_ptr_array_add(secrets, secret);
    }
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        struct mask *mask = mask_new(secrets);
        g_autoptr(GByteArray) out = g_byte_array_new();

        for (size_t at = 0; at < strlen(text); at += piece)
            mask_add(mask, text + at, MIN(piece, strlen(text) - at), out);
        mask_end(mask, out);
        g_byte_array_append(out, (const guint8 *)"", 1);
        cr_assert_str_eq((char *)out->data, expected, "%s in pieces of %zu: %s", text, piece,
                         (char *)out->data);
        mask_free(mask);
    }
}

Test(mask, hides_secrets_however_the_output_is_cut)
{
    static const char *const one[] = {"hunter2", NULL}, *const two[] = {"abcd", "abcdef", NULL},
                             *const lines[] = {"first line\nsecond\nxyz", NULL},
                             *const again[] = {"aaaab", NULL};

    shows(one, "a hunter2hunter2 hunter hunte", "a ****** hunter hunte");
    shows(two, "abcdef abcd abcde", "*** *** ***e");
    shows(lines, "<first line>\r\n<second> xyz", "<***>\r\n<***> xyz");
    shows(again, "aaaaaaab aaaa", "aaa*** aaaa");
}

Test(mask, is_none_when_there_is_nothing_to_hide)
{
    struct secret secret = {"A", "abc"};
    g_autoptr(GPtrArray) secrets = g_ptr_array_new();

    cr_assert_null(mask_new(secrets));
    g_ptr_array_add(secrets, &secret);
    cr_assert_null(mask_new(secrets));
}
