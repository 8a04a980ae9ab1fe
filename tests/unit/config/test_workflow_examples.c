/* tests/workflows: what is good is taken, what is bad is refused where and how the file itself says
 * ("# expected: LINE:COLUMN: …"). tests/integration/test_schema.py asks the JSON Schema the same.
 */
#include "config/workflow.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static bool parse(const char *kind, const char *name, char **text, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
    g_autofree char *path = g_build_filename(DSTACK_SOURCE, "tests/workflows", kind, name, NULL);

    cr_assert(g_file_get_contents(path, text, NULL, NULL), "%s", path);
    return workflows_parse(name, *text, strlen(*text), list, error);
}

static GPtrArray *names_of(const char *kind)
{
    g_autofree char *path = g_build_filename(DSTACK_SOURCE, "tests/workflows", kind, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    cr_assert_not_null(dir, "%s", path);
    while ((name = g_dir_read_name(dir)))
        g_ptr_array_add(names, g_strdup(name));
    cr_assert_gt(names->len, 5);
    return names;
}

Test(examples, good_ones_are_taken)
{
    g_autoptr(GPtrArray) names = names_of("good");

    for (guint i = 0; i < names->len; i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = NULL;

        cr_assert(parse("good", names->pdata[i], &text, &error), "%s", error ? error->message : "");
    }
}

Test(examples, bad_ones_are_refused_where_they_are_wrong)
{
    g_autoptr(GPtrArray) names = names_of("bad");

    for (guint i = 0; i < names->len; i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = NULL, *message = NULL;
        const char *expected;

        cr_assert_not(parse("bad", names->pdata[i], &text, &error), "%s is taken",
                      (char *)names->pdata[i]);
        cr_assert_eq(error->code, EINVAL);
        expected = strstr(text, "# expected: ");
        cr_assert_not_null(expected);
        expected += strlen("# expected: ");
        message = g_strdup_printf("%s:%.*s", (char *)names->pdata[i], (int)strcspn(expected, "\n"),
                                  expected);
        cr_assert(g_str_has_prefix(error->message, message), "expected %s…, said %s", message,
                  error->message);
    }
}
